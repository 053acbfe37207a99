#!/usr/bin/env bash
# A real power cut, round after round: what of a store had reached the disk.
#
# 1. An ext4 file system on a loop device; a writer on it prints what it has done.
# 2. At a random time the writer is frozen and the file behind the loop device is copied: only what
#    went through the block layer is in it, not what the page cache of the inner file system holds.
# 3. The writer is killed, the copy is mounted (ext4 replays its journal), the store is opened and
#    must hold everything that was acknowledged as on disk.
#
# Needs root and loop devices; says "skipped" elsewhere. It ends only what it started, by id, and
# unmounts and detaches what it made.
#
#   ROUNDS=100 SEED=1 tools/torture/power-cut.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

ROUNDS="${ROUNDS:-5}"
SEED="${SEED:-1}"
SIZE="${SIZE:-192M}"

skip() {
    echo "power-cut: skipped: $1"
    exit 0
}
[ "$(id -u)" = 0 ] || skip "not root"
for tool in losetup mkfs.ext4 mount umount truncate; do
    command -v "$tool" >/dev/null || skip "no $tool"
done

TORTURE="${TORTURE:-}"
if [ -z "$TORTURE" ]; then
    cargo build --quiet --offline -p pmll-torture
    TORTURE="${CARGO_TARGET_DIR:-target}/debug/pmll-torture"
fi

work=$(mktemp -d)
loop="" copy="" writer=""
clean() {
    if [ -n "$writer" ]; then
        kill -KILL "$writer" 2>/dev/null || true
        wait "$writer" 2>/dev/null || true
        writer=""
    fi
    for place in disk after; do
        if mountpoint -q "$work/$place"; then umount "$work/$place" || umount -l "$work/$place"; fi
    done
    if [ -n "$loop" ]; then losetup -d "$loop" || true; loop=""; fi
    if [ -n "$copy" ]; then losetup -d "$copy" || true; copy=""; fi
}
trap 'clean; rm -rf "$work"' EXIT

mkdir "$work/disk" "$work/after"
truncate -s "$SIZE" "$work/probe"
probe=$(losetup --find --show "$work/probe" 2>/dev/null) || skip "no loop device"
losetup -d "$probe"
rm "$work/probe"

RANDOM=$SEED
acknowledged=0 durable=0 lost=0 bad=0
for round in $(seq "$ROUNDS"); do
    rm -f "$work/image" "$work/cut"
    truncate -s "$SIZE" "$work/image"
    mkfs.ext4 -q -F "$work/image"
    loop=$(losetup --find --show "$work/image")
    mount -t ext4 "$loop" "$work/disk" 2>/dev/null || skip "ext4 cannot be mounted"
    seed=$((SEED * 1000 + round))
    "$TORTURE" writer "$work/disk/store" "$seed" 0 1000000 0 >"$work/acks" 2>/dev/null &
    writer=$!
    sleep "$(printf '0.%03d' $((RANDOM % 900 + 50)))"
    sleep $((RANDOM % 3))
    kill -STOP "$writer"
    # A line that is being written when the writer is frozen is no acknowledgement yet.
    cp "$work/acks" "$work/acks-cut"
    # Also the inner file system writes on its own. A copy during which the device was written to is
    # of no one moment, so it is made again.
    while :; do
        before=$(cat "/sys/block/${loop##*/}/stat")
        cp --sparse=always "$work/image" "$work/cut"
        [ "$before" = "$(cat "/sys/block/${loop##*/}/stat")" ] && break
    done
    clean

    copy=$(losetup --find --show "$work/cut")
    mount -t ext4 "$copy" "$work/after"
    line=$("$TORTURE" check "$work/after/store" "$seed" "$work/acks-cut") || bad=$((bad + 1))
    echo "round $round, seed $seed: $line"
    clean
    # acknowledged A durable D ...
    read -r _ a _ d rest <<<"$line"
    acknowledged=$((acknowledged + a))
    durable=$((durable + d))
    case "$rest" in *lost*) l=${rest##*lost }; lost=$((lost + ${l%%:*})) ;; esac
done
echo "power-cut: $ROUNDS rounds, $acknowledged steps acknowledged ($durable of them as on disk), $lost lost," \
    "$bad rounds wrong, seed $SEED"
[ "$bad" = 0 ]
