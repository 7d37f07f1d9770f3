#!/usr/bin/env bash
# Fuzzes both readers, SECONDS each (60 by default), from the seeds in fuzz/seeds. Inputs have at most
# 64 KiB, so that one allocation above 64 MiB is an error: memory must follow from the size of a file.
# Needs a nightly toolchain and cargo-fuzz; says so and passes where they are not there.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${1:-60}"

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: skipped, there is no nightly toolchain (rustup toolchain install nightly)"
    exit 0
fi
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "fuzz: skipped, there is no cargo-fuzz (cargo install cargo-fuzz)"
    exit 0
fi

for target in gguf hf; do
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=65536 -malloc_limit_mb=64 -timeout=10 -print_final_stats=1
done
