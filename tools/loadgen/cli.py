"""``bench/loadgen``: a simulated fleet of Puppet nodes, and reports on what became of their catalogs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ingest.config import load
from ingest.core.passwords import hide_passwords_of_addresses
from ingest.core.quantities import duration_s
from ingest.errors import IngestError, Misconfigured, Unavailable
from ingest.publish import Publisher
from tools.loadgen.checking import differences
from tools.loadgen.fleet import DEFAULT_MIX, Fleet, parse_forms, parse_mix
from tools.loadgen.page import page
from tools.loadgen.report import markdown, summarise
from tools.loadgen.results import VERSION, About, Ended, Results
from tools.loadgen.schedule import SCENARIOS, schedule
from tools.loadgen.sending import Sender
from tools.loadgen.watching import POLL_S, Watcher

PER_S_MAX = 2000  # about what one core publishes of catalogs of 170 KB
SETTLE_S = 120.0  # how long after the last message its storing is waited for
EXIT_DIFFERENT, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_INTERRUPTED = 1, 2, 3, 130
console = Console(stderr=True)


def main() -> None:
    """Errors as one line; the exit code says what kind."""
    try:
        sys.exit(cli.main(prog_name="bench/loadgen", standalone_mode=False))
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        click.echo(f"loadgen: {error.format_message()}", err=True)
        sys.exit(EXIT_USAGE)
    except IngestError as error:
        click.echo(f"loadgen: {hide_passwords_of_addresses(str(error))}", err=True)
        sys.exit(EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_USAGE)


class _RunByDefault(click.Group):
    """``bench/loadgen --nodes 3000`` is ``bench/loadgen run --nodes 3000``."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        if arguments and arguments[0] not in self.commands and arguments[0] not in ("--help", "-h"):
            arguments = ["run", *arguments]
        return super().parse_args(context, arguments)


@click.group(cls=_RunByDefault, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Simulates a fleet whose nodes publish their catalogs, and reports what became of them."""


@cli.command("run")
@click.option("--nodes", default=3000, show_default=True)
@click.option("--interval", default="30m", show_default=True, help="between two runs of a node")
@click.option("--speed", default=1.0, show_default=True, help="how many times faster than real time")
@click.option("--runs", default=1.0, show_default=True, help="intervals to simulate")
@click.option("--scenario", default="steady", show_default=True, help=", ".join(SCENARIOS))
@click.option(
    "--mix", help="how catalogs change, like " + ",".join(f"{k}={v:g}" for k, v in DEFAULT_MIX.items())
)
@click.option(
    "--formats", default="wire", show_default=True, help="wire, native, legacy; several share the fleet"
)
@click.option(
    "--templates", type=click.Path(path_type=Path, exists=True, file_okay=False), help="real catalogs"
)
@click.option("--seed", default=1, show_default=True)
@click.option("--broker", default="stomp://127.0.0.1:61613", show_default=True)
@click.option("--destination", default="/queue/catalog", show_default=True)
@click.option(
    "--database", help="conninfo of the engine's database; without it nothing is watched or compared"
)
@click.option("--prime/--no-prime", default=True, help="store every node once before the clock starts")
@click.option("--drop", is_flag=True, help="publish to a sink instead: what the generator can do by itself")
@click.option("--output", type=click.Path(path_type=Path), help="directory of the raw results")
def run_command(**given: Any) -> int:
    """Simulate a fleet."""
    with ExitStack() as stack:
        return _run(stack, **given)


@cli.command("report")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="also write a page with pictures")
def report_command(directory: Path, html: Path | None) -> int:
    """Report on the raw results of a run."""
    summary = summarise(Results(directory))
    click.echo(markdown(summary), nl=False)
    if html is not None:
        html.write_text(page(summary), encoding="utf-8")
    return 0


def _run(
    stack: ExitStack, *, nodes: int, interval: str, speed: float, runs: float, scenario: str, mix: str | None,
    formats: str, templates: Path | None, seed: int, broker: str, destination: str, database: str | None,
    prime: bool, drop: bool, output: Path | None,
) -> int:  # fmt: skip
    try:
        interval_s = duration_s(interval)
    except ValueError:
        raise Misconfigured("--interval", f"{interval!r} is no duration like 30m") from None
    _require_possible(nodes, interval_s, speed, runs)
    fleet = Fleet(
        nodes,
        seed,
        mix=parse_mix(mix) if mix else DEFAULT_MIX,
        forms=parse_forms(formats),
        templates=templates,
    )
    dues = schedule(scenario, nodes, interval_s, runs * interval_s, seed)
    if scenario not in SCENARIOS:
        next(iter(dues))  # says which there are
    if drop:
        return _alone(stack, fleet)
    output = output or Path(f"loadgen-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    publisher = Publisher(load({"queue_source": broker, "destination": destination}, {}).config)
    stack.callback(publisher.close)
    _require_database(database)
    results = Results(output)
    results.begin(
        About(
            VERSION, datetime.now(UTC).isoformat(timespec="seconds"), scenario, nodes, interval_s, speed,
            runs * interval_s, tuple(parse_forms(formats)), fleet.mix, seed,
            str(templates) if templates else None, hide_passwords_of_addresses(broker), POLL_S,
        )
    )  # fmt: skip
    sender = Sender(publisher, fleet)
    if prime:
        with _bar("priming", nodes) as step:
            sender.prime(lambda: step(1))
        if database is not None:
            _wait_primed(database, nodes)
    ended = _simulate(stack, sender, fleet, dues, speed, runs * interval_s, database, results)
    results.end(ended)
    summary = summarise(results)
    (output / "report.html").write_text(page(summary), encoding="utf-8")
    click.echo(markdown(summary), nl=False)
    console.print(f"raw results and report.html: {output}")
    if ended.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_DIFFERENT if ended.differences else 0


def _simulate(
    stack: ExitStack, sender: Sender, fleet: Fleet, dues: Any, speed: float, duration_s_: float,
    database: str | None, results: Results,
) -> Ended:  # fmt: skip
    sent_lines, stored_lines = results.writer("sent.jsonl"), results.writer("stored.jsonl")
    stack.callback(sent_lines.close)
    stack.callback(stored_lines.close)
    start_s, cpu_s = time.monotonic(), time.process_time()
    watcher = None
    if database is not None:
        names = {node.certname: node.number for node in fleet.nodes}
        watcher = Watcher(database, names, stored_lines, start_s)
    interrupted = False
    differing = None
    compared = 0
    try:
        try:
            with _bar("seconds", duration_s_ / speed) as step:
                shown_s = 0.0

                def tick(now_s: float) -> None:
                    nonlocal shown_s
                    if now_s - shown_s > 0.2:
                        step(now_s - shown_s)
                        shown_s = now_s

                expect = watcher.expect if watcher else lambda *_: None
                sender.run(dues, speed, start_s, sent_lines, expect, tick)
            cpu_s = time.process_time() - cpu_s
            if watcher is not None:
                _wait_settled(watcher)
        finally:
            if watcher is not None:
                watcher.close()
                if watcher.failure:
                    console.print(f"the watcher stopped: {watcher.failure}")
        if database is not None:
            with _bar("comparing", len(sender.newest)) as step:
                found = list(differences(database, fleet, sender.newest, lambda: step(1)))
            for difference in found[:10]:
                console.print(f"{difference.certname}: {difference.what}")
            differing, compared = len(found), len(sender.newest)
    except KeyboardInterrupt:
        interrupted = True
    sent_lines.flush()
    stored_lines.flush()
    return Ended(interrupted, sender.sent, sender.receipted, sender.send_s, cpu_s, differing, compared)


def _alone(stack: ExitStack, fleet: Fleet) -> int:
    """The generator into a sink: how many catalogs a second it can publish at most."""
    sink = subprocess.Popen(
        [sys.executable, "-m", "tools.loadgen.sink"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stack.callback(sink.wait)
    stack.callback(sink.stdin.close)  # type: ignore[union-attr]
    assert sink.stdout is not None
    port = sink.stdout.readline().strip()
    publisher = Publisher(load({"queue_source": f"stomp://127.0.0.1:{port}"}, {}).config)
    stack.callback(publisher.close)
    sender = Sender(publisher, fleet)
    begin, cpu = time.monotonic(), time.process_time()
    with _bar("publishing", len(fleet.nodes)) as step:
        sender.prime(lambda: step(1))
    seconds, used = time.monotonic() - begin, time.process_time() - cpu
    size = sum(node.template.bytes for node in fleet.nodes) / len(fleet.nodes)
    click.echo(
        json.dumps(
            {
                "catalogs": len(fleet.nodes), "mean_kib": round(size / 1024), "per_s": round(len(fleet.nodes) / seconds, 1),
                "cpu_ms": round(used * 1000 / len(fleet.nodes), 3),
            }
        )
    )  # fmt: skip
    return 0


def _require_possible(nodes: int, interval_s: float, speed: float, runs: float) -> None:
    if nodes < 1:
        raise Misconfigured("--nodes", f"{nodes} is no fleet: at least one node")
    if interval_s <= 0:
        raise Misconfigured("--interval", "it must be longer than nothing")
    if speed <= 0:
        raise Misconfigured("--speed", f"{speed:g} would never end: more than 0")
    if runs <= 0:
        raise Misconfigured("--runs", f"{runs:g} simulates nothing: more than 0")
    per_s = nodes * speed / interval_s
    if per_s > PER_S_MAX:
        raise Misconfigured(
            "--speed",
            f"{nodes} nodes every {interval_s / speed:.3g} s are {per_s:.0f} catalogs a second: no generator on one core "
            f"publishes more than {PER_S_MAX}; fewer nodes, a longer interval, or less speed",
        )


def _require_database(database: str | None) -> None:
    if database is None:
        return
    try:
        with psycopg.connect(database, connect_timeout=5) as connection:
            connection.execute("SELECT FROM node_catalogs LIMIT 1")
    except psycopg.Error as error:
        raise Unavailable(f"--database: {' '.join(str(error).split())}") from error


def _wait_primed(database: str, nodes: int) -> None:
    with psycopg.connect(database, autocommit=True) as connection, _bar("stored", nodes) as step:
        shown, moved_s = 0, time.monotonic()
        while shown < nodes:
            row: Any = connection.execute("SELECT count(*) FROM catalogs").fetchone()
            if row[0] > shown:
                step(min(row[0], nodes) - shown)
                shown, moved_s = row[0], time.monotonic()
            if time.monotonic() - moved_s > SETTLE_S:
                raise Unavailable(
                    f"nothing was stored for {SETTLE_S:.0f} s, {shown} of {nodes} nodes are: does 'ingest run' work on "
                    "this broker, destination and database?"
                )
            time.sleep(0.1)


def _wait_settled(watcher: Watcher) -> None:
    left = watcher.waiting
    with _bar("settling", left) as step:
        moved_s = time.monotonic()
        while (now := watcher.waiting) and time.monotonic() - moved_s < SETTLE_S and not watcher.failure:
            if now < left:
                step(left - now)
                left, moved_s = now, time.monotonic()
            time.sleep(0.05)
        step(left)


class _bar:  # noqa: N801  a context manager that is called like a function
    def __init__(self, what: str, total: float) -> None:
        self._progress = Progress(
            TextColumn(f"{what:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(what, total=max(1, round(total)))

    def __enter__(self) -> Any:
        self._progress.start()
        return lambda n: self._progress.advance(self._task, n)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
