"""``python -m tests.faults.atheris_run``: coverage-guided mutants of real catalogs, where atheris installs (``make fuzz``).

Flags are libFuzzer's: ``-max_total_time=60``. A body that is neither work nor a quarantine ends the run with a crash file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # an extra that not every platform has

with atheris.instrument_imports(include=["ingest.core", "ingest.engine.decoder"]):
    from tests.faults.decoding import Bench

from tests.faults.test_fuzz import SEEDS

BODY_BYTES_MAX = 100_000  # libFuzzer's own default would be the largest seed


def main() -> None:
    bench = Bench()

    def try_one(data: bytes) -> None:
        bench.take(data, {}, complete=True)

    with tempfile.TemporaryDirectory(prefix="ingest-fuzz-") as directory:
        for number, seed in enumerate(SEEDS):
            (Path(directory) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], f"-max_len={BODY_BYTES_MAX}", *sys.argv[1:], directory], try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
