#!/usr/bin/env bash
# Builds the core crate with shuttle's locks and tries schedules of group commit.
#
# With `--target` the flag reaches the crates alone: macros and build scripts are those of any other
# build. Light optimisation of the core crate is compiled in a third of the time and runs half as fast.
#
#   tools/schedules/run.sh                          20,000 schedules
#   PMLL_SCHEDULES=170000 tools/schedules/run.sh    as many for each test
set -euo pipefail
cd "$(dirname "$0")/../.."

host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="${RUSTFLAGS:-} --cfg shuttle" exec cargo test --locked --target "$host" \
    --config 'profile.dev.package.pmll.opt-level=1' -p pmll-schedules --test schedules -- --nocapture
