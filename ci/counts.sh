#!/usr/bin/env bash
# Instructions of products, counted by callgrind and held against ci/counts.txt: unlike times they are
# the same on every run and every machine, so a slower kernel shows where no clock can be trusted.
# Callgrind knows no AVX-512; what it counts are the scalar kernels and those of AVX2.
#
# Usage: ci/counts.sh            fails where a count is more than 5 % above the baseline
#        ci/counts.sh --renew    writes the baseline anew
#
# Counts depend on the compiler: with another rustc than the baseline's they are only reported.
set -euo pipefail
cd "$(dirname "$0")/.."
baseline=ci/counts.txt

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "counts.sh: skipped, the baseline is for Linux on x86-64"
  exit 0
fi
if ! command -v valgrind >/dev/null; then
  sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get -qq update
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends valgrind >/dev/null
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cargo build -q --locked --release -p tritmark-kernels --example count

# Kernel, shape and tokens: each way of the AVX2 tier, and the scalar law.
count() {
  local out=$folder/out total
  valgrind -q --tool=callgrind --callgrind-out-file="$out" --collect-atstart=no --toggle-collect='*counted*' \
    target/release/examples/count "$@" >"$folder/said" 2>&1 || { cat "$folder/said" >&2; return 1; }
  total=$(sed -n 's/^totals: //p' "$out")
  [ "${total:-0}" -gt 0 ] || { echo "counts.sh: nothing was counted of $*" >&2; return 1; }
  printf '%s %s %s %s\n' "$@" "$total"
}
{
  echo "# $(rustc --version), $(valgrind --version)"
  echo "# kernel, shape, tokens, instructions"
  for tokens in 1 4 64; do
    count tm2/avx2 576x640 $tokens
    count tm1_67/avx2 576x640 $tokens
    count i2_s/avx2 576x640 $tokens
  done
  for tokens in 1 4 16; do
    count tq1_0/avx2 576x768 $tokens
  done
  for tokens in 4 64; do
    count hf/avx2 576x640 $tokens
  done
  count tq2_0/avx2 576x768 1
  for tokens in 1 8; do
    count tl1/avx2 576x640 $tokens
    count tl2/avx2 576x640 $tokens
  done
  count tm2/scalar 96x640 1
  count i2_s/scalar 96x640 4
} >"$folder/counts"

if [ "${1-}" = --renew ]; then
  mv "$folder/counts" "$baseline"
  cat "$baseline"
  exit 0
fi
same_compiler=0
[ "$(head -1 "$baseline" | cut -d, -f1)" = "# $(rustc --version)" ] && same_compiler=1
awk -v gate=$same_compiler '
  /^#/ { if (NR == FNR) print "baseline:", substr($0, 3); next }
  { key = $1 " " $2 " " $3 }
  NR == FNR { old[key] = $4; next }
  !(key in old) { print "not in the baseline: " key " " $4; bad = 1; next }
  {
    change = 100 * ($4 / old[key] - 1)
    printf "%-28s %12d  %+6.2f %%\n", key, $4, change
    if (change > 5) { print "more instructions than the baseline allows: " key; bad = 1 }
    if (change < -5) print "fewer than before; ci/counts.sh --renew keeps it so: " key
    delete old[key]
  }
  END {
    for (key in old) { print "no longer counted: " key; bad = 1 }
    if (bad && !gate) print "only reported, as the baseline is of another compiler"
    exit bad && gate
  }' "$baseline" "$folder/counts"
