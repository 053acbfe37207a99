#!/usr/bin/env bash
# What was tried, counted by who tried it: runs suites and writes the line each of them prints into
# docs/TESTING.md, with the command and its seconds.
#
#   tools/torture/counts.sh gate               every suite as the gate runs it
#   tools/torture/counts.sh hand               every suite as it is run by hand: hours
#   tools/torture/counts.sh gate faults kill   some of them; the lines of the others stay
#
# A suite that fails, or prints no line, changes nothing in the file, and the script ends with 1. Without
# root or loop devices the power cut says that it is skipped, and that is its line.
set -uo pipefail
cd "$(dirname "$0")/../.."

PAGE=docs/TESTING.md
part="${1:-}"
shift || true

# name | what begins its line | command, by part
suites() {
    local it='cargo test --locked --test it' quiet='-- --nocapture'
    case "$part" in
    gate)
        echo "crash|crash: |$it crash:: $quiet"
        echo "sabotage|sabotage: |cargo test --locked --lib --test it sabotage:: $quiet"
        echo "faults|faults: |$it faults:: $quiet"
        echo "damage|flips: |$it flips:: $quiet"
        echo "kill|kill: |cargo test --locked -p pmll-cli --test kill $quiet"
        echo "torture|kill: |cargo test --locked -p pmll-torture --test kill $quiet"
        echo "schedules|schedules: |tools/schedules/run.sh"
        echo "power-cut|power-cut: |ROUNDS=5 tools/torture/power-cut.sh"
        ;;
    hand)
        echo "crash|simulate: in all|cargo run --profile fast -p pmll-torture -- simulate 3 20260 100 0 6"
        echo "faults|faults: |PMLL_FAULTS=all PMLL_FAULTS_PAIRS=90000 $it faults:: $quiet"
        echo "damage|flips: |PMLL_FLIPS=7 $it flips:: $quiet"
        echo "kill|kill: |PMLL_KILL_ROUNDS=200 cargo test --locked -p pmll-cli --test kill $quiet"
        echo "torture|kill: |PMLL_TORTURE_ROUNDS=5000 cargo test --locked -p pmll-torture --test kill $quiet"
        echo "schedules|schedules: |PMLL_SCHEDULES=170000 tools/schedules/run.sh"
        echo "power-cut|power-cut: |ROUNDS=100 tools/torture/power-cut.sh"
        ;;
    esac
}

list=$(suites)
if [ -z "$list" ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 2
fi

begin="<!-- counts $part: written by tools/torture/counts.sh -->"
end="<!-- end of counts $part -->"
if ! grep -qxF -- "$begin" "$PAGE" || ! grep -qxF -- "$end" "$PAGE"; then
    echo "counts: $PAGE has no place for the part '$part'" >&2
    exit 1
fi
for name in "$@"; do
    grep -q "^$name|" <<<"$list" || { echo "counts: no suite '$name'" >&2; exit 2; }
done

# Puts a row into the part: over the one of this suite, or behind the last.
put() {
    ROW="$2" awk -v name="| $1 |" -v begin="$begin" -v end="$end" '
        $0 == begin { inside = 1 }
        inside && index($0, name) == 1 { if (!done) print ENVIRON["ROW"]; done = 1; next }
        $0 == end { if (!done) print ENVIRON["ROW"]; inside = 0 }
        { print }' "$PAGE" >"$PAGE.new" && cat "$PAGE.new" >"$PAGE"
    rm -f "$PAGE.new"
}

failed=0
while IFS='|' read -r name prefix command; do
    if [ $# -gt 0 ]; then
        case " $* " in *" $name "*) ;; *) continue ;; esac
    fi
    echo "== $name: $command"
    begun=$SECONDS
    output=$(bash -c "$command" 2>&1 </dev/null)
    status=$?
    lines=$(grep -o "$prefix.*" <<<"$output" | sed 's/|/\\|/g' | paste -sd'~' | sed 's/~/<br>/g')
    if [ $status -ne 0 ] || [ -z "$lines" ]; then
        tail -40 <<<"$output"
        echo "counts: $name failed with $status, its line stays as it was" >&2
        failed=1
        continue
    fi
    echo "$lines"
    put "$name" "| $name | \`$command\` | $lines | $((SECONDS - begun)) s, $(date -u +%F) |"
done <<<"$list"
exit $failed
