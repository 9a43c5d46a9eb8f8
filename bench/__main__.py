"""The short form of every suite, one after the other, and a report of their records.

``make bench`` takes a few minutes. Each suite by itself (``python -m bench.pipeline --help``) takes other catalogs,
more of them, and other settings.
"""

from __future__ import annotations

import subprocess
import sys

from bench.report import write

SUITES = (
    ("bench.core",),
    ("bench.store",),
    ("bench.receiver", "--clones", "4"),
    ("bench.pipeline", "--clones", "20", "--workers", "1", "2", "4", "8"),
    ("bench.low_load", "--idle-s", "10"),
)


def main() -> None:
    for suite in SUITES:
        print(f"== {' '.join(suite)}", flush=True)
        ended = subprocess.run([sys.executable, "-m", *suite], check=False).returncode
        if ended:
            sys.exit(f"{suite[0]} failed")
    print("report:", write())


if __name__ == "__main__":
    main()
