#!/usr/bin/env bash
# Checks in the machine code that the hot loops of each tier are made of the instructions that the
# tier is named for, and that nothing of them was left as a call: an intrinsic that is not inlined is
# right, but many times slower, and no other test sees it.
#
# Usage: ci/instructions.sh x86_64|aarch64 OBJDUMP PROGRAM..., programs that contain all kernels.
set -euo pipefail
arch=$1 objdump=$2
shift 2

# Function (extended regular expression; of the tier, or of the crate behind ::), instruction, register (or none).
case $arch in
x86_64) table='
AVX2::(gemv|tile|chunks|chunk_tile|digits|digit_tile|row) vpmaddubsw ymm
AVXVNNI::(gemv|tile|chunks|chunk_tile|digits|digit_tile|row) vpdpbusd ymm
AVX512::(gemv|tile|chunk_tile|row) vpmaddubsw zmm
AVX512::(chunks|digits|digit_tile) vpmaddubsw ymm
AVX512VNNI::(gemv|tile|chunk_tile|digits|digit_tile|row) vpdpbusd zmm
AVX512VNNI::chunks              vpdpbusd    ymm
lookup256::Quads.*multiply      vpaddw      ymm
lookup512::Words.*::add         vpermw      zmm
lookup512::Words.*add_with_dots vpermw      zmm
triples::add                    vpermw      zmm
triples::add_vbmi2              vpshldw     zmm
nibbles::multiply               vpshufb     ymm
(AVX2|AVXVNNI|AVX512|AVX512VNNI)::strip vpshufb ymm
::float::rows::multiply_(f32|f16|bf16)::avx2 (vfmadd[0-9]+|vmul|vadd)ps ymm
::float::rows::multiply_(f32|f16|bf16)::avx512 (vfmadd[0-9]+|vmul|vadd)ps zmm
::float::int6::multiply::avx2   vpmaddubsw  ymm
::float::int6::multiply::avx512 vpmaddubsw  zmm
::float::int6::multiply::avx512vnni vpdpbusd zmm
::float::attention::attend::avx2 vfmadd[0-9]+ps ymm
::float::attention::attend::avx512 vfmadd[0-9]+ps zmm' ;;
aarch64) table='
NEON::(tile|chunks)             smlal2?
DOTPROD::(tile|chunks)          sdot
I8MM::chunks                    sdot
I8MM::tile                      smmla
nibbles::multiply               tbl
::float::int6::multiply::dotprod sdot' ;;
esac

"$objdump" -d -C --no-show-raw-insn "$@" | awk -v arch="$arch" -v table="$table" '
  BEGIN {
    rows = split(table, row, "\n")
    for (i = 2; i <= rows; i++) {
      split(row[i], field, " ")
      place = field[1] ~ /^::/ ? "tritmark_kernels" : "tier::" arch "::"
      pattern[i] = place field[1] "(::h[0-9a-f]+)?>:$"
      instruction[i] = "[ \t]" field[2] "[ \t]"
      register[i] = field[3]
    }
  }
  /^[0-9a-f]+ </ {
    name = $0
    sub(/^[0-9a-f]+ /, "", name)
    current = 0
    for (i in pattern) if (name ~ pattern[i]) { current = i; if (!(name in count)) count[name] = 0; seen[i]++ }
    next
  }
  current && $0 ~ instruction[current] && (register[current] == "" || index($0, register[current])) { count[name]++ }
  current && /core_arch|float::simd::Simd>|try_trait::Wrapped/ { print "not inlined in " name " " $0; bad = 1 }
  END {
    for (i in pattern) if (!seen[i]) { print "no function matches " pattern[i]; bad = 1 }
    for (name in count) {
      print count[name], name
      if (!count[name]) { print "none of the instructions that it is named for: " name; bad = 1 }
    }
    exit bad
  }'
