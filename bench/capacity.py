"""The capacity model against the real engine: loads from 10 to 95 % of its limit, several numbers of workers.

The model is calibrated for each number of workers, before the loads and after them, or takes ``--calibration``; the loads
are others: other nodes, other mixes of kinds, messages at random times. Each is run several times, and the run
with the middle p99 is compared. Each message carries when it was due, and PostgreSQL remembers when it was
committed (track_commit_timestamp): the difference is its freshness. The simulation gets the same arrivals, and how much
slower the machine was than at the calibration: what the same piece of work took right before and after each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import msgspec

from bench.capacity_load import Fleet
from bench.capacity_table import HEAD, QUIET_CORES, line_of, plot, quantile, stages_of, verdict
from bench.records import record
from ingest.capacity.calibrate import calibrate
from ingest.capacity.calibration import Calibration, load
from ingest.capacity.catalogs import Template, from_directory, synthetic
from ingest.capacity.costs import Costs, Line, costs_of
from ingest.capacity.engine import children_of, free_port, machine_busy_s, measured_engine
from ingest.capacity.machine import work_s
from ingest.capacity.rounds import Node
from ingest.capacity.simulation import Outcome, simulate
from ingest.capacity.world import Arrival, Setup
from ingest.config.loading import load as load_config
from ingest.config.settings import Config
from ingest.engine.signals import leave_on_signals
from ingest.store.capacity import backends
from ingest.store.connection import connect
from lab.servers import Postgres, embedded_broker

WINDOW_MESSAGES = 64  # fewer than nodes: a node has one catalog under way, as in life, and none is superseded
LOADS = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95)
MORE = 1.2  # times what was offered, until it is too much
KEPT_UP = 0.9  # it is too much when no larger share of it comes through
QUIET_WAIT_S = 8
PACES = 5  # of a sixth of a second
# By so much the same work differs from one look to the next; only more tells of a machine that is quicker or slower now.
PACE_NOISE = 0.1
SIMULATIONS = 5  # with other noise; the means of their quantiles are compared


class Model(NamedTuple):
    """A calibration, and how quick the machine was then."""

    costs: Costs
    pace_s: float


def pace_s() -> float:
    """What a piece of work takes with all cores busy: a machine that others share is not always equally quick."""
    return median(work_s(os.cpu_count() or 1) for _ in range(PACES))


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration", type=Path, help="instead of a new one")
    parser.add_argument("--templates", type=Path, help="real catalogs, for the calibration and the loads")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS)
    parser.add_argument("--seconds", type=float, default=8, help="of each load")
    parser.add_argument("--times", type=int, default=3, help="each load; the run with the middle p99 counts")
    parser.add_argument(
        "--clones", type=int, default=50, help="nodes of each role; with few, catalogs overtake each other"
    )
    parser.add_argument(
        "--stages", action="store_true", help="also each stage's CPU time, measured and predicted"
    )
    parser.add_argument("--raw", type=Path, help="append every arrival and its freshness, a JSON line a run")
    parser.add_argument("--seed", type=int, default=2)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    rows: list[dict[str, Any]] = []
    try:
        server.start(
            fsync="on", track_commit_timestamp="on", shared_buffers="256MB", max_wal_size="8GB",
            checkpoint_timeout="30min",
        )  # fmt: skip
        templates = (
            from_directory(options.templates, options.seed)
            if options.templates
            else synthetic(8, options.seed)
        )
        for workers in options.workers:
            server.execute("postgres", f"CREATE DATABASE load_{workers}")
            config = load_config(
                {"workers": str(workers), "database": server.conninfo(f"load_{workers}"),
                 "window_messages_max": str(WINDOW_MESSAGES)}, {},
            ).config  # fmt: skip
            print(HEAD)
            for row in measure(config, templates, options):
                rows.append(row)
                print(line_of(row), flush=True)
                if options.stages:
                    print("   CPU ms:", stages_of(row))
    finally:
        server.stop()
        shutil.rmtree(directory)
        if rows:
            file = record("capacity", vars(options), rows)
            plot(rows, file.with_suffix(".svg"))
            print(verdict(rows))
            print("record:", file, "plot:", file.with_suffix(".svg"))


def calibrated(options: argparse.Namespace, config: Config) -> tuple[Calibration, float]:
    """With the machine's pace then."""
    if options.calibration:
        return load(options.calibration), pace_s()
    before_s = pace_s()
    templates = from_directory(options.templates, 1) if options.templates else synthetic(8, 1)
    made = calibrate(config, templates, str(options.templates or "synthetic"))
    return made, min(before_s, pace_s())


def model_of(calibrations: Sequence[tuple[Calibration, float]]) -> Model:
    """What they say together: a machine that others share is not the same for ten minutes."""
    all_ = [calibration for calibration, _ in calibrations]
    together = msgspec.structs.replace(
        all_[0],
        rounds=tuple(round_ for one in all_ for round_ in one.rounds),
        samples=tuple(sample for one in all_ for sample in one.samples),
        commit_s=tuple(sorted(wait_s for one in all_ for wait_s in one.commit_s)),
        crowding=mean(one.crowding for one in all_),
    )
    return Model(costs_of(together), mean(pace for _, pace in calibrations))


def measure(
    config: Config, templates: Sequence[Template], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The limit and each load below it, between two calibrations."""
    calibrations = [calibrated(options, config)]
    found, publisher = loads(config, templates, options)
    calibrations.append(calibrated(options, config))
    model = model_of(calibrations)
    for row in found:
        yield compare(row, model, config, publisher, options.raw)


def loads(
    config: Config, templates: Sequence[Template], options: argparse.Namespace
) -> tuple[list[dict[str, Any]], Line]:
    """What was measured of each, and what the generator takes."""
    before = set(children_of(os.getpid()))
    with embedded_broker() as url:
        config = msgspec.structs.replace(
            config, queue_source=url, metrics_port=free_port(), log_level="warning", gc_interval_s=0.0
        )
        with measured_engine(config) as engine:
            pids = engine.pids() | {"supervisor": engine.process.pid}
            (pids["broker"],) = set(children_of(os.getpid())) - before - {engine.process.pid}
            with connect(config.database) as watcher:
                pids |= {f"PostgreSQL-{name}": pid for name, pid in backends(watcher).items()}
            nodes = [Node(template, clone) for clone in range(options.clones) for template in templates]
            random.Random(options.seed).shuffle(nodes)
            fleet = Fleet(config, engine, nodes, options.seed, pids)
            fleet.load_all()
            # After that caches are as they are in life, not as after a first load.
            rate = fleet.run(rate=None, seconds=options.seconds)["per_s"]
            while fleet.run(rate, options.seconds)["per_s"] > KEPT_UP * rate:
                rate *= MORE
            limit = middle(partial(fleet.run, rate, options.seconds), options.times)
            found = [limit | {"load": 1.0}]
            for share in options.loads:
                run = partial(fleet.run, limit["per_s"] * share, options.seconds)
                found.append(middle(run, options.times) | {"load": share})
            fleet.close()
    return found, Line(0.0, limit["publisher_s"] / limit["bytes"])


def middle(run: Callable[[], dict[str, Any]], times: int) -> dict[str, Any]:
    """The run with the median p99 of several."""
    found = []
    for _ in range(times):
        wait_for_quiet()
        before_s = pace_s()
        found.append(run())
        # The smaller: what disturbs a look at the clock makes it longer.
        found[-1]["pace_s"] = min(before_s, pace_s())
    found.sort(key=lambda row: float(row["p99"]))
    return found[len(found) // 2] | {"p99_of_all": [row["p99"] for row in found]}


def wait_for_quiet() -> None:
    """A second without others, if it comes soon."""
    for _ in range(QUIET_WAIT_S):
        busy_s = machine_busy_s()
        time.sleep(1)
        if machine_busy_s() - busy_s < QUIET_CORES:
            return


def compare(
    found: dict[str, Any], model: Model, config: Config, publisher: Line, raw: Path | None
) -> dict[str, Any]:
    """The row with the model's answer to the same arrivals."""
    arrivals: list[Arrival] = found.pop("arrivals")
    each: list[float | None] = found.pop("freshness")
    if raw is not None:
        line = {"run": found, "publisher": publisher, "arrivals": arrivals, "freshness_s": each}
        with raw.open("a") as file:
            file.write(json.dumps(line) + "\n")
    setup = Setup(
        cores=os.cpu_count() or 1,
        workers=config.workers,
        writers=config.writers,
        broker_here=True,
        publisher=publisher,
        linger_s=config.batch_linger_ms / 1000,
        batch_messages_max=config.batch_messages_max,
        window_messages_max=config.window_messages_max,
    )
    slower = found["pace_s"] / model.pace_s
    if abs(slower - 1) < PACE_NOISE:
        slower = 1.0
    costs = model.costs.slower(slower)
    outcomes: list[Outcome] = [simulate(costs, setup, arrivals, seed) for seed in range(SIMULATIONS)]
    return found | {
        "slower": slower,
        "model_per_s": mean(len(arrivals) / o.duration_s for o in outcomes),
        "model_p50": mean(quantile(o.freshness_s, 0.5) for o in outcomes),
        "model_p99": mean(quantile(o.freshness_s, 0.99) for o in outcomes),
        "model_cpu_ms": {
            stage: mean(o.served_s[stage] for o in outcomes) * 1000 / len(arrivals)
            for stage in outcomes[0].served_s
        },
        "model_cores_busy": mean(o.busy["cores"] for o in outcomes) * setup.cores,
    }


if __name__ == "__main__":
    main()
