"""Where the processor time under a function went: shares of functions, from recordings of perf.

    perf record -F 4999 --call-graph dwarf,16384 -o FILE COMMAND
    python3 tools/bench/shares.py FUNCTION FILE...

FUNCTION is a regular expression. Of all samples with such a function on their stack it prints how many
there are, then the functions with the most samples of their own, and those with the most in themselves
and in what they called, down to the outermost FUNCTION. Functions that the compiler put into their
callers count as these.
"""

import collections
import re
import subprocess
import sys

OWN_SHOWN = 20
ALL_SHOWN = 60


def stacks(path):
    """The stacks of a recording, innermost function first."""
    script = ["perf", "script", "-i", path, "--no-inline", "-F", "ip,sym"]
    printed = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    for sample in printed.split("\n\n"):
        lines = (line.split(maxsplit=1) for line in sample.splitlines())
        stack = [line[-1] for line in lines if line]
        if stack:
            yield stack


def main():
    function, paths = re.compile(sys.argv[1]), sys.argv[2:]
    samples, own, everything = 0, collections.Counter(), collections.Counter()
    for stack in (stack for path in paths for stack in stacks(path)):
        depth = max((n for n, name in enumerate(stack) if function.search(name)), default=None)
        if depth is None:
            continue
        samples += 1
        own[stack[0]] += 1
        everything.update(set(stack[: depth + 1]))
    print(f"{samples} samples under {function.pattern}")
    for title, counted, shown in [("own", own, OWN_SHOWN), ("with callees", everything, ALL_SHOWN)]:
        print(f"\n% {title}")
        for name, count in counted.most_common(shown):
            print(f"{100 * count / samples:6.2f}  {name}")


if __name__ == "__main__":
    main()
