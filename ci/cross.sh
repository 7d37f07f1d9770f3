#!/usr/bin/env bash
# The tests of the kernels on CPUs that this machine is not, through qemu: aarch64 with everything and
# without dotprod, x86-64 without AVX-512 and without AVX2. Each run prints the kernels that it tests
# and those that it skips, and why.
#
# For x86-64 hosts. The aarch64 standard library comes from rustup where that can be had, else from
# Debian, as do qemu and the linker.
set -euo pipefail
cd "$(dirname "$0")/.."

arm=aarch64-unknown-linux-gnu
if [ "$(uname -m)" != x86_64 ]; then
  echo "cross.sh: skipped, the host is $(uname -m) and not x86-64"
  exit 0
fi

install() {
  local sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo dpkg --add-architecture arm64
  $sudo apt-get -qq update
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

# The subshell's compiler and target directory are its own; host builds elsewhere stay warm.
run_arm() (
  packages=()
  { command -v qemu-aarch64 && command -v qemu-x86_64; } >/dev/null || packages+=(qemu-user)
  command -v aarch64-linux-gnu-gcc >/dev/null || packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
  if timeout 120 rustup target add "$arm" 2>/dev/null; then
    echo "aarch64: standard library of rustup"
  else
    echo "aarch64: standard library of Debian (rustup cannot add $arm here)"
    export RUSTC=/usr/bin/rustc
    dpkg-query -W libstd-rust-web-dev:arm64 >/dev/null 2>&1 || packages+=(rustc-web libstd-rust-web-dev:arm64)
  fi
  [ ${#packages[@]} = 0 ] || install "${packages[@]}"

  export CARGO_TARGET_DIR=target/cross
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  # Linked statically, so that no libraries of another system are mixed in.
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
  for cpu in max cortex-a53; do
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $cpu"
    suite "aarch64 $cpu" --target "$arm"
  done
  instructions aarch64 aarch64-linux-gnu-objdump --target "$arm"
)

run_x86() (
  for cpu in Haswell Nehalem; do
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="qemu-x86_64 -cpu $cpu"
    suite "x86-64 $cpu"
  done
  instructions x86_64 objdump
)

# The machine code of the kernels, as the tests contain it, compiled as a release is.
instructions() {
  local arch=$1 objdump=$2 said programs
  shift 2
  printf '\n== instructions of %s ==\n' "$arch"
  said=$(cargo test --release --locked -p tritmark-kernels "$@" --lib --test kernels --no-run 2>&1) || { echo "$said" >&2; return 1; }
  programs=$(sed -n 's|.*(\(target.*\))$|\1|p' <<<"$said")
  # shellcheck disable=SC2086 # One word each.
  ci/instructions.sh "$arch" "$objdump" $programs
}

# What depends on the instructions of a CPU: everything but thread scheduling and speed limits.
suite() {
  local name=$1
  shift
  printf '\n== %s ==\n' "$name"
  # qemu names, for each thread, the features of the CPU that it does not emulate.
  {
    cargo test -q --locked -p tritmark-kernels "$@" --lib -- --skip pool:: --skip limits::
    cargo test -q --locked -p tritmark-kernels "$@" --test '*' -- --nocapture
  } 2> >(grep -v "TCG doesn't support" >&2)
}

run_arm
run_x86
