"""Makes sotu.jsonl from the demo's held-out text: which of four continuations follows?

python bench-suites/tasks/make.py bench-suites/demo/test.txt > bench-suites/tasks/sotu.jsonl
"""
import json, random, re, sys

rng = random.Random(1)
text = open(sys.argv[1], encoding="utf-8").read()
sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if 14 <= len(s.split()) <= 40 and s.isascii()]
halves = []
for sentence in rng.sample(sentences, 100):
    words = sentence.split()
    halves.append((" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])))
for context, ending in halves:
    # Wrong endings of about the same length, so that length alone does not tell.
    others = sorted((e for _, e in halves if e != ending), key=lambda e: abs(len(e) - len(ending)))[:3]
    choices = others + [ending]
    rng.shuffle(choices)
    print(json.dumps({"context": context, "choices": choices, "answer": choices.index(ending)}))
