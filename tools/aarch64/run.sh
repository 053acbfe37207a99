#!/usr/bin/env bash
# Builds the crate for aarch64 and runs its tests under qemu's emulation of one process.
#
# 1. A cross linker (gcc-aarch64-linux-gnu) and qemu-user: what is missing is installed with apt, as root.
# 2. A compiler whose standard library covers aarch64: the usual one, if it does; else that of Debian's
#    packages rustc-web and libstd-rust-web for both machines, unpacked in a folder, with package lists of
#    their own. The system's compiler and architectures stay as they are.
# 3. All units of the library, then tests of the whole store from outside, on a processor with the first
#    version of the architecture and nothing more.
#
# Where apt, root or the packages are missing, it says so and ends well. It says nothing about speed.
#
#   tools/aarch64/run.sh                     as above
#   tools/aarch64/run.sh pure::              units of that name only, nothing from outside
#   QEMU_CPU=max tools/aarch64/run.sh        a processor with everything that qemu knows
#   PMLL_PAGE_BYTES=65536 ...                what the program is told about pages; qemu's own is 4,096
#   PMLL_AARCH64_CACHE=FOLDER ...            where the packages are unpacked
set -euo pipefail
cd "$(dirname "$0")/../.."

triple=aarch64-unknown-linux-gnu
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")/aarch64"
cache="$(realpath -m "${PMLL_AARCH64_CACHE:-$target/toolchain}")"
# Of the tests from outside: whole stores that are written, searched, closed and opened again.
outside=(beside closing levels model owners rebuild search vacuum writes)

skip() {
    printf 'aarch64: skipped: %s\n' "$*"
    exit 0
}

# Downloads and unpacks Debian's compiler; every file of it lies below the cache.
unpack() {
    [ "$(uname -m)" = x86_64 ] || skip "no compiler for aarch64, and Debian's is unpacked on x86-64 only"
    command -v apt-get > /dev/null && command -v dpkg > /dev/null || skip 'no apt'
    local lists="$cache/lists" debs="$cache/debs" std llvm
    mkdir -p "$lists/partial" "$debs/partial"
    local apt=(-o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o "Dir::State::Lists=$lists"
        -o "Dir::Cache=$cache/apt" -o Debug::NoLocking=1 -o APT::Sandbox::User=)
    apt-get "${apt[@]}" -qq update || skip 'apt finds no package lists'
    depends() { apt-cache "${apt[@]}" depends --important "$1" 2> /dev/null | sed -n "s/.*Depends: \($2[^ :]*\).*/\1/p" | head -n 1; }
    std=$(depends libstd-rust-web-dev:amd64 libstd-rust-web-)
    [ -n "$std" ] || skip 'apt knows no libstd-rust-web'
    llvm=$(depends "$std:amd64" libllvm)
    (cd "$debs" && apt-get "${apt[@]}" -qq download rustc-web:amd64 "$llvm:amd64" \
        "$std:amd64" libstd-rust-web-dev:amd64 "$std:arm64" libstd-rust-web-dev:arm64) \
        || skip 'apt has not all packages of the compiler'
    # Whole or not at all: the next run asks only whether it is there.
    rm -rf "$cache/unpacking"
    for deb in "$debs"/*.deb; do dpkg -x "$deb" "$cache/unpacking"; done
    rm -rf "$cache/root"
    mv "$cache/unpacking" "$cache/root"
    rm -r "$debs" "$lists"
}

missing=()
command -v aarch64-linux-gnu-gcc > /dev/null || missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
command -v qemu-aarch64 > /dev/null || missing+=(qemu-user)
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get > /dev/null || skip "no ${missing[*]}, and no apt"
    [ "$(id -u)" = 0 ] || skip "no ${missing[*]}, and only root may install them"
    apt-get -qq update && apt-get -qq install -y --no-install-recommends --no-upgrade "${missing[@]}" \
        || skip "apt cannot install ${missing[*]}"
fi
if ! [ -d "$("${RUSTC:-rustc}" --print target-libdir --target "$triple")" ]; then
    [ -x "$cache/root/usr/bin/rustc" ] || unpack
    export RUSTC="$cache/root/usr/bin/rustc"
    # The compiler's own libraries; those of the system that it wants besides are named below.
    export LD_LIBRARY_PATH="$cache/root/usr/lib/x86_64-linux-gnu"
    "$RUSTC" --version > /dev/null 2>&1 \
        || skip "the compiler wants $(ldd "$LD_LIBRARY_PATH"/*.so* | sed -n 's/ => not found//p' | sort -u | xargs)"
fi

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export QEMU_CPU="${QEMU_CPU:-cortex-a57}"
qemu="qemu-aarch64 -L /usr/aarch64-linux-gnu"
[ -z "${PMLL_PAGE_BYTES:-}" ] || qemu+=" -p $PMLL_PAGE_BYTES"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$qemu"

run() {
    printf '\naarch64 (%s, %s): cargo test %s\n' "$QEMU_CPU" "$("${RUSTC:-rustc}" --version | cut -d' ' -f1-2)" "$*"
    # Light optimisation of the core crate: compiled in a third of the time.
    cargo test --locked -p pmll --target "$triple" --target-dir "$target" \
        --config 'profile.dev.package.pmll.opt-level=1' --config 'profile.dev.package.pmll-torture.opt-level=1' "$@"
}

if [ $# -gt 0 ]; then
    run --lib -- "$@"
    exit
fi
run --lib
run --test it -- "${outside[@]/%/::}"
