#!/usr/bin/env bash
# Fuzzes both readers, SECONDS each (60 by default), from the seeds in tests/fuzz/seeds. Inputs have at
# most 64 KiB, so that one allocation above 64 MiB is an error: memory must follow from the size of a file.
# The same SEED (1 by default) tries the same inputs, so that a change is judged by what it changes.
#
# Usage: ci/fuzz.sh [SECONDS [SEED]]
#
# Needs a nightly toolchain, and says so and passes where there is none; cargo-fuzz is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:-60}"
seed="${2:-1}"

if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "fuzz.sh: skipped, there is no nightly toolchain (rustup toolchain install nightly)"
  exit 0
fi
export CARGO_TARGET_DIR=$PWD/target/fuzz
if ! cargo fuzz --version >/dev/null 2>&1; then
  cargo install -q --locked cargo-fuzz --root target/fuzz
  PATH=$PWD/target/fuzz/bin:$PATH
fi

for target in gguf hf; do
  corpus=$PWD/target/fuzz/corpus/$target
  mkdir -p "$corpus"
  cargo +nightly fuzz run --fuzz-dir tests/fuzz "$target" "$corpus" "$PWD/tests/fuzz/seeds/$target" -- \
    -seed="$seed" -max_total_time="$seconds" -artifact_prefix="$PWD/target/fuzz/" \
    -max_len=65536 -malloc_limit_mb=64 -timeout=10 -print_final_stats=1
done
