"""The capacity model against the real engine: loads from 10 to 95 % of its limit, several numbers of workers.

The model is calibrated first, or takes ``--calibration``; the loads here are others: other nodes, other mixes of
kinds, messages at random times. Each message carries when it was due, and PostgreSQL remembers when it was
committed (track_commit_timestamp): the difference is its freshness. The simulation gets the same arrivals.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from bench.records import record
from ingest.capacity.calibrate import calibrate
from ingest.capacity.calibration import Calibration, load, save
from ingest.capacity.catalogs import Template, from_directory, synthetic
from ingest.capacity.costs import Costs, Line, costs_of
from ingest.capacity.engine import children_of, cpu_of, free_port, machine_busy_s, measured_engine
from ingest.capacity.instance import Arrival, Setup
from ingest.capacity.rounds import Node
from ingest.capacity.simulation import Outcome, simulate
from ingest.config import Config
from ingest.config import load as load_config
from ingest.core.routing import decoders_at_work
from ingest.embedded import embedded_broker
from ingest.publish import Publisher
from ingest.store.capacity import backends
from ingest.store.connection import connect
from tests.servers import Postgres

LOADS = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95)
MIX = {"unchanged": 0.88, "few": 0.1, "upgrade": 0.02}
POLL_S = 0.2
MESSAGES_MIN = 400  # p99 of fewer says nothing
LIMIT_MESSAGES = 900
QUIET_WAIT_S = 8
QUIET_CORES = 0.15  # what the kernel, PostgreSQL's background and a look at the clock use
SIMULATIONS = 5  # with other noise; the means of their quantiles are compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration", type=Path, help="instead of a new one")
    parser.add_argument("--templates", type=Path, help="real catalogs, for the calibration and the loads")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS)
    parser.add_argument("--seconds", type=float, default=8, help="of each load")
    parser.add_argument("--tries", type=int, default=3, help="of a load, while others use the machine")
    parser.add_argument(
        "--clones", type=int, default=12, help="nodes of each role; a decoder's cache decides much"
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
        calibration = _calibration(options, server)
        costs = costs_of(calibration)
        templates = (
            from_directory(options.templates, options.seed)
            if options.templates
            else synthetic(8, options.seed)
        )
        print(HEAD)
        for workers in options.workers:
            server.execute("postgres", f"CREATE DATABASE load_{workers}")
            config = load_config(
                {"workers": str(workers), "database": server.conninfo(f"load_{workers}")}, {}
            ).config
            for row in measure(config, costs, templates, options):
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


def _calibration(options: argparse.Namespace, server: Postgres) -> Calibration:
    if options.calibration:
        return load(options.calibration)
    config = load_config({"database": server.conninfo("postgres")}, {}).config
    templates = from_directory(options.templates, 1) if options.templates else synthetic(8, 1)
    made = calibrate(config, templates, str(options.templates or "synthetic"))
    save(made, Path(tempfile.gettempdir()) / "ingest-calibration.json")
    print(f"calibrated in {made.seconds:.0f} s: {Path(tempfile.gettempdir()) / 'ingest-calibration.json'}")
    return made


def measure(
    config: Config, costs: Costs, templates: Sequence[Template], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The limit, then each load below it."""
    before = set(children_of(os.getpid()))
    with embedded_broker(0) as url:
        config = load_config(
            {"workers": str(config.workers), "database": config.database, "queue_source": url,
             "metrics_port": str(free_port()), "log_level": "error", "gc_interval_s": "0"}, {},
        ).config  # fmt: skip
        with measured_engine(config) as engine:
            pids = engine.pids() | {"supervisor": engine.process.pid}
            (pids["broker"],) = set(children_of(os.getpid())) - before - {engine.process.pid}
            with connect(config.database) as watcher:
                pids |= {f"PostgreSQL-{name}": pid for name, pid in backends(watcher).items()}
            nodes = [Node(template, clone) for clone in range(options.clones) for template in templates]
            random.Random(options.seed).shuffle(nodes)
            fleet = Fleet(config, engine, nodes, options.seed, pids)
            fleet.load_all()
            fleet.run(
                rate=None, seconds=options.seconds
            )  # caches as they are in life, not as after a first load
            limit = quietest(lambda: fleet.run(rate=None, seconds=options.seconds), options.tries)
            publisher = Line(0.0, limit["publisher_s"] / limit["bytes"])
            yield compare(limit, costs, config, publisher, 1.0, options.raw)
            for share in options.loads:
                rate = limit["per_s"] * share
                found = quietest(partial(fleet.run, rate=rate, seconds=options.seconds), options.tries)
                yield compare(found, costs, config, publisher, share, options.raw)
            fleet.close()


def quietest(run: Callable[[], dict[str, Any]], tries: int) -> dict[str, Any]:
    """Again while others use the machine, and then the run that was disturbed least."""
    found = []
    for _ in range(tries):
        wait_for_quiet()
        found.append(run())
        if found[-1]["elsewhere"] < QUIET_CORES:
            break
    return min(found, key=lambda row: row["elsewhere"])


def wait_for_quiet() -> None:
    """A second without others, if it comes soon."""
    for _ in range(QUIET_WAIT_S):
        busy_s = machine_busy_s()
        time.sleep(1)
        if machine_busy_s() - busy_s < QUIET_CORES:
            return


class Fleet:
    """Publishes at random times, watches PostgreSQL."""

    def __init__(
        self, config: Config, engine: Any, nodes: list[Node], seed: int, pids: dict[str, int]
    ) -> None:
        self.config, self.engine, self.nodes, self.pids = config, engine, nodes, pids
        self.chance = random.Random(seed)
        self.publisher = Publisher(config)
        self.settled = 0
        self.place = 0
        self.releases: set[tuple[str, int, int]] = set()

    def close(self) -> None:
        self.publisher.close()

    def load_all(self) -> None:
        now = datetime.now(UTC)
        self.publisher.publish((node.template.render(node.certname, now), {}) for node in self.nodes)
        self._wait(len(self.nodes))

    def run(self, rate: float | None, seconds: float) -> dict[str, Any]:
        """Random arrivals at a rate, or, without one, all at once: as fast as they can be published."""
        count = max(int(rate * seconds), MESSAGES_MIN) if rate else LIMIT_MESSAGES
        arrivals = list(self._arrivals(count, rate))
        seen: dict[tuple[str, datetime], datetime] = {}
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop, seen))
        watcher.start()
        cpu = cpu_of(self.pids)
        busy_s, own_s = machine_busy_s(), time.process_time()
        start = datetime.now(UTC) + timedelta(seconds=0.05)
        sent: list[tuple[str, datetime]] = []
        sizes: list[int] = []
        kinds: list[str] = []
        late = [0.0]

        def bodies() -> Iterator[tuple[bytes, dict[str, str]]]:
            for due_s, kind, node in arrivals:
                due = start + timedelta(seconds=due_s)
                wait_s = (due - datetime.now(UTC)).total_seconds()
                if wait_s > 0:
                    time.sleep(wait_s)
                late[0] = max(late[0], -wait_s)
                kind = self._possible(node, kind)
                body = self._body(node, kind, due)
                sent.append((node.certname, due))
                sizes.append(len(body))
                kinds.append(self._kind(node, kind))
                yield body, {}

        publisher_start_s = time.thread_time()
        self.publisher.publish(bodies())
        published = datetime.now(UTC)
        published_s = time.thread_time() - publisher_start_s
        self._wait(count)
        settled_s = (datetime.now(UTC) - start).total_seconds()
        spent = {name: after - cpu[name] for name, after in cpu_of(self.pids).items()}
        engine_s = sum(spent.values())
        time.sleep(2 * POLL_S)
        stop.set()
        watcher.join()
        if rate:
            found = [(seen[key] - key[1]).total_seconds() for key in sent if key in seen]
        else:
            found = [(seen[key] - start).total_seconds() for key in sent if key in seen]
        ends = [seen[key] for key in sent if key in seen]
        seconds_ = (max(ends) - start).total_seconds()
        return {
            "workers": self.config.workers,
            "rate": rate,
            "messages": count,
            "bytes": sum(sizes),
            "per_s": count / seconds_,
            "published_per_s": count / (published - start).total_seconds(),
            "late_s": late[0],
            "p50": quantile(found, 0.5),
            "p99": quantile(found, 0.99),
            "unseen": count - len(found),
            "publisher_s": published_s,
            "cpu_ms": _stages(
                {name: one * 1000 / count for name, one in (spent | {"publisher": published_s}).items()}
            ),
            "cores_busy": (machine_busy_s() - busy_s) / (settled_s + 2 * POLL_S),
            "elsewhere": (machine_busy_s() - busy_s - engine_s - (time.process_time() - own_s)) / settled_s,
            "freshness": [
                (seen[key] - (key[1] if rate else start)).total_seconds() if key in seen else None
                for key in sent
            ],
            "arrivals": [
                Arrival(due_s, kind, size, zlib.crc32(node.certname.encode()))
                for (due_s, _, node), kind, size in zip(arrivals, kinds, sizes, strict=True)
            ],
        }

    def _arrivals(self, count: int, rate: float | None) -> Iterator[tuple[float, str, Node]]:
        at_s = 0.0
        for _ in range(count):
            if rate:
                at_s += self.chance.expovariate(rate)
            self.place += 1
            node = self.nodes[self.place % len(self.nodes)]
            yield at_s, self.chance.choices(list(MIX), list(MIX.values()))[0], node

    def _possible(self, node: Node, kind: str) -> str:
        """Releases come in waves: a role has the next one when all its nodes have the last one. Between two, who has
        it already changes a few parameters instead."""
        role = [other.release for other in self.nodes if other.template is node.template]
        return "few" if kind == "upgrade" and node.release == max(role) != min(role) else kind

    def _body(self, node: Any, kind: str, due: datetime) -> bytes:
        node.tweak += kind == "few"
        node.release += kind == "upgrade"
        body: bytes = node.template.render(node.certname, due, tweak=node.tweak, release=node.release)
        return body

    def _kind(self, node: Node, kind: str) -> str:
        """An upgrade is new when its role's release comes to the node's decoder for the first time."""
        if kind != "upgrade":
            return kind
        decoder = zlib.crc32(node.certname.encode()) % min(
            self.config.workers, decoders_at_work(os.cpu_count() or 1)
        )
        key = (node.template.name, node.release, decoder)
        is_new = key not in self.releases
        self.releases.add(key)
        return "upgrade_new" if is_new else kind

    def _watch(self, stop: threading.Event, seen: dict[tuple[str, datetime], datetime]) -> None:
        connection = connect(self.config.database)
        since = datetime.now(UTC) - timedelta(seconds=1)
        while not stop.wait(POLL_S):
            rows: Any = connection.execute(
                "SELECT n.certname, c.producer_timestamp, pg_xact_commit_timestamp(c.xmin) FROM catalogs c"
                " JOIN nodes n ON n.id = c.node_id WHERE c.producer_timestamp > %s", [since],
            ).fetchall()  # fmt: skip
            for certname, due, committed in rows:
                seen[certname, due] = committed
        connection.close()

    def _wait(self, messages: int) -> None:
        self.settled += messages

        def done() -> bool:
            time.sleep(0.1)  # each look costs the supervisor a millisecond
            return bool(self.engine.settled() >= self.settled)

        self.engine.wait(done, f"{messages} catalogs", 120)


def compare(
    found: dict[str, Any], costs: Costs, config: Config, publisher: Line, share: float, raw: Path | None
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
    )
    outcomes: list[Outcome] = [simulate(costs, setup, arrivals, seed) for seed in range(SIMULATIONS)]
    return found | {
        "load": share,
        "model_per_s": mean(len(arrivals) / o.duration_s for o in outcomes),
        "model_p50": mean(quantile(o.freshness_s, 0.5) for o in outcomes),
        "model_p99": mean(quantile(o.freshness_s, 0.99) for o in outcomes),
        "model_cpu_ms": {
            stage: mean(o.served_s[stage] for o in outcomes) * 1000 / len(arrivals)
            for stage in outcomes[0].served_s
        },
        "model_cores_busy": mean(o.busy["cores"] for o in outcomes) * setup.cores,
    }


def _stages(cpu: dict[str, float]) -> dict[str, float]:
    """Summed over the processes of a stage."""
    found: dict[str, float] = {}
    for name, value in cpu.items():
        stage = name.partition("-")[0]
        found[stage] = found.get(stage, 0.0) + value
    return found


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


HEAD = (
    f"{'workers':>7} {'load':>5} {'offered/s':>9} | {'measured/s':>10} {'model/s':>8} {'error':>6} | "
    f"{'p50 ms':>7} {'model':>7} {'error':>6} | {'p99 ms':>7} {'model':>7} {'error':>6} | "
    f"{'cores':>5} {'model':>5} {'others':>6} {'unseen':>6} {'late ms':>7}"
)


def line_of(row: dict[str, Any]) -> str:
    def pair(name: str, factor: float, digits: int) -> str:
        measured, model = row[name] * factor, row[f"model_{name}"] * factor
        return f"{measured:>7.{digits}f} {model:>7.{digits}f} {error(row, name):>+6.0%}"

    return (
        f"{row['workers']:>7} {row['load']:>5.0%} {row['rate'] or 0:>9.1f} |    {pair('per_s', 1, 1)}  | "
        f"{pair('p50', 1000, 0)} | {pair('p99', 1000, 0)} | "
        f"{row['cores_busy']:>5.2f} {row['model_cores_busy']:>5.2f} {row['elsewhere']:>6.2f} {row['unseen']:>6} "
        f"{row['late_s'] * 1000:>7.0f}"
    )


def stages_of(row: dict[str, Any]) -> str:
    return ", ".join(
        f"{stage} {measured:.2f} ({row['model_cpu_ms'].get(stage, float('nan')):.2f})"
        for stage, measured in row["cpu_ms"].items()
    )


def error(row: dict[str, Any], name: str) -> float:
    return float(row[f"model_{name}"] / row[name] - 1)


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """How many of the goals hold: throughput within 10 %, p99 within 30 %."""
    limits = sum(abs(error(row, "per_s")) <= 0.1 for row in rows)
    loads = [row for row in rows if row["rate"]]
    tails = sum(abs(error(row, "p99")) <= 0.3 for row in loads)
    return f"throughput within 10 %: {limits} of {len(rows)}; p99 within 30 %: {tails} of {len(loads)}"


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, name, title, factor in zip(
        axes,
        ("per_s", "p50", "p99"),
        ("catalogs/s", "p50 freshness, ms", "p99 freshness, ms"),
        (1, 1000, 1000),
        strict=True,
    ):
        for number, workers in enumerate(sorted({row["workers"] for row in rows})):
            mine = [row for row in rows if row["workers"] == workers and (row["rate"] or name == "per_s")]
            mine.sort(key=lambda row: row["load"])
            loads = [row["load"] * 100 for row in mine]
            colour = f"C{number}"
            axis.plot(
                loads,
                [row[name] * factor for row in mine],
                "o",
                color=colour,
                label=f"{workers} workers, measured",
            )
            axis.plot(
                loads, [row[f"model_{name}"] * factor for row in mine], "-", color=colour, label="model"
            )
        axis.set_title(title)
        axis.set_xlabel("load, % of the limit")
        if name != "per_s":
            axis.set_yscale("log")
        axis.legend(fontsize=7)
    figure.savefig(file)


if __name__ == "__main__":
    main()
