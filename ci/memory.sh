#!/usr/bin/env bash
# The tests of the kernels, on every tier of this machine, under AddressSanitizer: they end at the
# first access outside of what was allocated.
#
# The sanitizer's runtime comes with Rust's standard library for Linux; only the flag is kept for
# nightly compilers, which RUSTC_BOOTSTRAP makes of a stable one. The standard library itself stays as
# it is. Buffers of a megabyte and more are mapped from the system, where nothing watches their ends;
# the tests' are smaller, but for those of the widest rows, and with `watched` none shares a mapping.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
case $target in
*-linux-gnu) ;;
*)
  echo "memory.sh: skipped on $target: only Linux has the sanitizer's runtime"
  exit 0
  ;;
esac
flag=-Zsanitizer=address
export RUSTC_BOOTSTRAP=1

# First, whether it would notice: the checked reads are those of intrinsics on unsafe pointers.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/outside.rs" <<'RUST'
fn main() {
    let bytes = vec![7u8; 64];
    let at = std::hint::black_box(bytes.as_ptr()).wrapping_add(56);
    #[cfg(target_arch = "x86_64")]
    unsafe { std::hint::black_box(std::arch::x86_64::_mm_loadu_si128(at.cast())) };
    #[cfg(target_arch = "aarch64")]
    unsafe { std::hint::black_box(std::arch::aarch64::vld1q_u8(at)) };
}
RUST
rustc $flag --edition 2024 -Copt-level=3 -o "$folder/outside" "$folder/outside.rs"
if "$folder/outside" 2>"$folder/said"; then
  echo "memory.sh: a read of 16 bytes at the last 8 of a vector went unnoticed" >&2
  exit 1
fi
grep -q heap-buffer-overflow "$folder/said" || { cat "$folder/said" >&2; exit 1; }

# With a target named, the flag is not for build scripts and procedural macros.
export RUSTFLAGS="$flag --cfg watched" CARGO_TARGET_DIR=target/memory
cargo test --locked -p tritmark-kernels --target "$target" --no-run
timeout 300 cargo test -q --locked -p tritmark-kernels --target "$target" --lib
timeout 300 cargo test -q --locked -p tritmark-kernels --target "$target" --test '*' -- --nocapture
