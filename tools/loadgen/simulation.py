"""One run: prime the database, send what is due, watch it being stored, compare the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg

from ingest.errors import Misconfigured, Unavailable
from ingest.transport.publisher import Publisher
from tools.loadgen.checking import differences
from tools.loadgen.fleet import Fleet
from tools.loadgen.progress import Bar, console
from tools.loadgen.results import Ended, Lines, Results
from tools.loadgen.schedule import OUTAGE_S, Due, schedule, there_from_the_start
from tools.loadgen.sending import Sender
from tools.loadgen.watching import NEWEST, Watcher

SETTLE_S = 120.0  # without anything new being stored: then the rest is given up
WORDS = {"facts": "facts", "catalog": "catalogs", "report": "reports"}
SHOWN_EVERY_S = 0.2
SHOWN_DIFFERENCES = 10
HERE = "SELECT count(*) FROM ({newest}) newest WHERE certname = ANY (%s) AND producer_timestamp >= %s"


class Plan(msgspec.Struct, frozen=True):
    """What is simulated. Times are those of the fleet's clock."""

    scenario: str
    interval_s: float
    duration_s: float
    speed: float
    seed: int
    prime: bool

    @property
    def outage(self) -> timedelta:
        """How long before the start the first message was due, in real time."""
        return timedelta(seconds=OUTAGE_S / self.speed if self.scenario == "backlog" else 0)


def simulate(plan: Plan, fleet: Fleet, publisher: Publisher, database: str | None, results: Results) -> Ended:
    """Leaves the raw results as they come. Raises Misconfigured or Unavailable where it cannot begin, and Unavailable
    when the broker goes away."""
    first_at = datetime.now(UTC) - plan.outage
    names = {node.certname: node.number for node in fleet.nodes}
    if database is not None:
        _require_older(database, fleet.kinds, names, first_at)
    sender = Sender(publisher, fleet)
    if plan.prime:
        _prime(plan, fleet, sender, first_at, database, names)
    sent_lines, stored_lines = results.writer("sent.jsonl"), results.writer("stored.jsonl")
    start_s, cpu_s = time.monotonic(), time.process_time()
    watcher = Watcher(database, names, stored_lines, start_s) if database is not None else None
    dues = schedule(plan.scenario, len(fleet.nodes), plan.interval_s, plan.duration_s, plan.seed)
    interrupted, differing = False, None
    try:
        _send(plan, sender, dues, start_s, sent_lines, watcher)
        cpu_s = time.process_time() - cpu_s
        sent_lines.flush()
        if watcher is not None:
            _wait_settled(watcher)
            watcher.close()
        if database is not None:
            differing = _compare(database, fleet, sender, first_at)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if watcher is not None:
            watcher.close()
        sent_lines.close()
        stored_lines.close()
    return Ended(
        interrupted, sender.sent, sender.receipted, sender.send_s, cpu_s,
        watcher.looked_s if watcher is not None else 0.0, differing, 0 if differing is None else len(sender.newest),
    )  # fmt: skip


def require_database(database: str) -> None:
    """Raises Unavailable when it cannot be read, or the engine has never seen it."""
    try:
        with psycopg.connect(database, connect_timeout=5) as connection:
            connection.execute("SELECT FROM node_catalogs LIMIT 1")
    except psycopg.Error as error:
        raise Unavailable(f"--database: {' '.join(str(error).split())}") from error


def _here(connection: psycopg.Connection[Any], what: str, names: Mapping[str, int], since: datetime) -> int:
    row: Any = connection.execute(HERE.format(newest=NEWEST[what]), [list(names), since]).fetchone()
    return int(row[0])


def _require_older(database: str, kinds: Sequence[str], names: Mapping[str, int], first_at: datetime) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        newer = {what: _here(connection, what, names, first_at) for what in kinds}
    for what in ("catalog", *kinds):
        if not newer.get(what):
            continue
        raise Misconfigured(
            "--database",
            f"it has {WORDS[what]} of {newer[what]} of these nodes that are newer than the first ones of this run, "
            f"{first_at:%Y-%m-%d %H:%M:%S} UTC: wait until then, or begin with an empty database",
        )


def _prime(
    plan: Plan, fleet: Fleet, sender: Sender, at: datetime, database: str | None, names: Mapping[str, int]
) -> None:
    """Every node's first run is stored before the clock starts, as in a fleet that has been running."""
    nodes = [n for n in fleet.nodes if there_from_the_start(plan.scenario, n.number, len(fleet.nodes))]
    with Bar("priming", len(nodes)) as bar:
        sender.prime(nodes, lambda: bar.advance(1), at)
    if database is None:
        return
    messages = len(nodes) * len(fleet.kinds)
    with psycopg.connect(database, autocommit=True) as connection, Bar("stored", messages) as bar:
        shown, moved_s = 0, time.monotonic()
        while shown < messages:
            here = sum(_here(connection, what, names, at) for what in fleet.kinds)
            if here > shown:
                bar.advance(here - shown)
                shown, moved_s = here, time.monotonic()
            if time.monotonic() - moved_s > SETTLE_S:
                raise Unavailable(
                    f"nothing was stored for {SETTLE_S:.0f} s, {shown} of {messages} messages are: does 'ingest run' "
                    "work on this broker, these destinations and this database?"
                )
            time.sleep(SHOWN_EVERY_S)


def _send(
    plan: Plan, sender: Sender, dues: Iterable[Due], start_s: float, lines: Lines, watcher: Watcher | None
) -> None:
    """The progress bar counts seconds; beside it the rate of the last moment and how late sending and storing are."""
    with Bar("seconds", plan.duration_s / plan.speed) as bar:
        shown_s, shown_sent = 0.0, 0

        def tick(now_s: float) -> None:
            nonlocal shown_s, shown_sent
            passed_s = now_s - shown_s
            if passed_s < SHOWN_EVERY_S:
                return
            note = f"{(sender.sent - shown_sent) / passed_s:.0f}/s, sent {sender.late_s * 1000:.0f} ms late"
            if watcher is not None:
                note += f", {watcher.waiting} not stored yet"
                note += f" ({watcher.failure})" if watcher.failure else ""
            bar.advance(passed_s, note)
            lines.flush()  # so that a run that is killed can be reported too
            shown_s, shown_sent = now_s, sender.sent

        expect = watcher.expect if watcher is not None else lambda *_: None
        sender.run(dues, plan.speed, start_s, lines, expect, tick)


def _wait_settled(watcher: Watcher) -> None:
    left = watcher.waiting
    with Bar("settling", left) as bar:
        moved_s = time.monotonic()
        while (now := watcher.waiting) and time.monotonic() - moved_s < SETTLE_S:
            if now < left:
                bar.advance(left - now)
                left, moved_s = now, time.monotonic()
            time.sleep(SHOWN_EVERY_S / 4)
        bar.advance(left)


def _compare(database: str, fleet: Fleet, sender: Sender, first_at: datetime) -> int:
    with Bar("comparing", len(sender.newest)) as bar:
        found = list(differences(database, fleet, sender.newest, lambda: bar.advance(1), first_at))
    for difference in found[:SHOWN_DIFFERENCES]:
        console.print(f"{difference.certname}: {difference.what}", highlight=False, soft_wrap=True)
    if len(found) > SHOWN_DIFFERENCES:
        console.print(f"and {len(found) - SHOWN_DIFFERENCES} more")
    return len(found)
