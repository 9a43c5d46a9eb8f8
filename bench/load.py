"""``make bench-load``: a broker, a PostgreSQL and the engine started here, and bench/loadgen against them; with ``--one-box`` the
engine alone, with its embedded broker and PostgreSQL, which write through to the disk.

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
from typing import Any

from bench.records import record
from bench.servers import POSTGRESQL, broker_of, cpu_s
from ingest.engine.running import running_engine
from ingest.engine.signals import leave_on_signals
from lab.engine import Engine
from lab.servers import Postgres
from tools.loadgen.report import summarise
from tools.loadgen.results import Results

LOADGEN = Path(__file__).with_name("loadgen")
FLEET = ("--nodes", "3000", "--interval", "30m", "--speed", "60")
DATABASE = "ingest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    parser.add_argument("--one-box", action="store_true", help="the embedded broker and PostgreSQL")
    options, fleet = parser.parse_known_args()
    leave_on_signals()
    with ExitStack() as stack:
        # Not in /tmp, which may be memory.
        directory = Path(
            tempfile.mkdtemp(prefix="ingest-bench-", dir=Path.cwd() if options.one_box else None)
        )
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)  # PostgreSQL may run as another user
        started = _one_box if options.one_box else _apart
        engine, broker, database = started(directory, options, stack)
        # Ctrl-C is for the generator, which then reports on what there is; a handler, unlike SIG_IGN, is not inherited.
        signal.signal(signal.SIGINT, lambda *_: None)
        raw = directory / "raw"
        done = subprocess.run(
            [LOADGEN, *FLEET, "--output", raw, *fleet, "--broker", broker, "--database", database],
            env=os.environ | {"LOADGEN_PYTHON": sys.executable}, check=False,
        )  # fmt: skip
        used_s = cpu_s(engine.process.pid)
        print(f"the engine used {used_s:.1f} s of CPU, priming included", file=sys.stderr)
        if raw.exists() and not done.returncode:
            settings = {
                "one_box": options.one_box,
                "workers": options.workers,
                "fleet": " ".join([*FLEET, *fleet]),
            }
            print("record:", record("load", settings, _rows(raw, used_s)), file=sys.stderr)
        engine.stop()
    sys.exit(done.returncode)


def _apart(directory: Path, options: argparse.Namespace, stack: ExitStack) -> tuple[Engine, str, str]:
    postgres = Postgres(directory)
    stack.callback(postgres.stop)
    postgres.start(**POSTGRESQL)
    postgres.execute("postgres", f"CREATE DATABASE {DATABASE}")
    broker = broker_of(options.broker, stack)
    engine = _engine(broker, postgres.conninfo(DATABASE), directory, options, stack)
    return engine, broker, postgres.conninfo(DATABASE)


def _one_box(directory: Path, options: argparse.Namespace, stack: ExitStack) -> tuple[Engine, str, str]:
    os.environ["RUNTIME_DIRECTORY"] = str(directory / "runtime")  # ours too: to find it by
    data = ("--data-dir", str(directory / "data"), "--embedded-broker-port", "0")
    engine = _engine("", "", directory, options, stack, *data)
    found = running_engine("")
    assert found is not None
    return engine, found.queue_source, found.database


def _engine(
    broker: str, database: str, directory: Path, options: argparse.Namespace, stack: ExitStack, *flags: str
) -> Engine:
    workers = ("--workers", str(options.workers))
    engine = Engine(broker, database, *workers, *flags, log=directory / "engine.log")
    stack.callback(engine.kill)
    engine.wait_ready()
    return engine


def _rows(raw: Path, used_s: float) -> list[dict[str, Any]]:
    summary = summarise(Results(raw))
    whole = {
        "sent": summary.sent, "judged": summary.judged, "in_time": summary.in_time, "unseen": summary.unseen,
        "per_s": round(summary.per_s, 1), "mib_per_s": round(summary.mib_per_s, 1),
        "generator_late_s": round(summary.latest_s, 3), "engine_cpu_s": round(used_s, 1),
    }  # fmt: skip
    return [whole, *(each._asdict() for each in summary.freshness)]


if __name__ == "__main__":
    main()
