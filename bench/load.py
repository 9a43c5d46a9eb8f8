"""``make bench-load``: a broker, a PostgreSQL and the engine started here, and bench/loadgen against them.

Arguments that are none of its own go to bench/loadgen, behind those of the fleet below.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.servers import POSTGRESQL, broker_of, cpu_s
from ingest.engine.signals import leave_on_signals
from lab.engine import Engine
from lab.servers import Postgres

LOADGEN = Path(__file__).with_name("loadgen")
FLEET = ("--nodes", "3000", "--interval", "30m", "--speed", "60", "--whole-runs")
DATABASE = "ingest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    options, fleet = parser.parse_known_args()
    leave_on_signals()
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)  # PostgreSQL may run as another user
        postgres = Postgres(directory)
        stack.callback(postgres.stop)
        postgres.start(**POSTGRESQL)
        postgres.execute("postgres", f"CREATE DATABASE {DATABASE}")
        broker = broker_of(options.broker, stack)
        engine = Engine(
            broker,
            postgres.conninfo(DATABASE),
            "--workers",
            str(options.workers),
            log=directory / "engine.log",
        )
        stack.callback(engine.kill)
        engine.wait_ready()
        # Ctrl-C is for the generator, which then reports on what there is; a handler, unlike SIG_IGN, is not inherited.
        signal.signal(signal.SIGINT, lambda *_: None)
        done = subprocess.run(
            [LOADGEN, *FLEET, *fleet, "--broker", broker, "--database", postgres.conninfo(DATABASE)],
            env=os.environ | {"LOADGEN_PYTHON": sys.executable}, check=False,
        )  # fmt: skip
        print(f"the engine used {cpu_s(engine.process.pid):.1f} s of CPU, priming included", file=sys.stderr)
        engine.stop()
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
