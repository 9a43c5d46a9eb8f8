"""``ingest status`` and ``ingest top``: what matters of an engine and its fleet, once or until somebody leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from ingest.cli.printing import say, say_json, say_lines
from ingest.cli.settings import of_running_engine, with_settings
from ingest.cli.values import FiniteRange
from ingest.config.loading import Origins
from ingest.config.planned import load_plan
from ingest.config.settings import Config
from ingest.core.overview import Sample, overview
from ingest.core.overview_lines import lines
from ingest.core.printable import escape_unprintable
from ingest.errors import IngestError, Misconfigured, Unavailable

BETWEEN_SAMPLES_S = 0.5  # rates take two
TOP_EVERY_S = 2.0
OF_KINDS = "ingest_settle_seconds_"  # counts what of each kind was settled, as well


@click.command("status")
@click.option("--all", "shows_all", is_flag=True, help="every number of every process instead")
@click.option("--json", "as_json", is_flag=True, help="as one JSON object")
@with_settings
def status_command(settings: Origins, shows_all: bool, as_json: bool) -> None:
    """What matters, in twelve lines: the engine, the fleet, and the one thing that is wrong."""
    from ingest.observe.asking import where

    config = of_running_engine(settings.config, by_metrics=True)
    planned = load_plan(config.plan_file)
    before = _sample(config)
    if shows_all:
        document = {"health": before.status["health"], "processes": before.status["processes"]}
        say_json(json.dumps(document).encode()) if as_json else _say_all(before)
    else:
        time.sleep(BETWEEN_SAMPLES_S)
        with _told_of_fleet(config) as ask:
            fleet, quarantine, away = ask()
        found = _understood(config, lambda: overview(_sample(config), before, fleet, quarantine, planned))
        if as_json:
            say_json(json.dumps(found, default=str).encode())
        else:
            for name, text in lines(found, where(config)):
                say(f"{name:<11} {escape_unprintable(text)}")
            if away:
                say(f"{'fleet':<11} unknown: {away}")
    if not before.status["health"]["healthy"]:
        raise Unavailable("; ".join(before.status["health"]["reasons"]))


def _sample(config: Config) -> Sample:
    """Raises Unavailable where no engine answers."""
    from ingest.observe.asking import read_status

    sample = Sample(time.monotonic(), read_status(config))
    _understood(config, lambda: overview(sample))
    return sample


def _understood(config: Config, make: Any) -> Any:
    from ingest.observe.asking import where

    try:
        return make()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(
            f"no engine answers at {where(config)} (--metrics-port): {type(error).__name__} in its answer"
        ) from error


@contextmanager
def _told_of_fleet(config: Config) -> Iterator[Any]:
    """A function that gives (fleet, quarantine, why not) again and again; the database need not be known."""
    from ingest.engine.run import open_database
    from ingest.store.node.freshness import fleet_freshness, quarantine_summary

    connection: Any = None

    def ask() -> tuple[Any, Any, str]:
        nonlocal connection
        if not config.database:
            return None, (), "name the --database"
        try:
            if connection is None or connection.closed:
                connection = open_database(config, writes=False)
            return fleet_freshness(connection), quarantine_summary(connection), ""
        except IngestError as error:
            return None, (), str(error)

    try:
        yield ask
    finally:
        if connection is not None:
            connection.close()


def _say_all(sample: Sample) -> None:
    health = sample.status["health"]
    told = ["ready" if health["ready"] else "not ready: " + "; ".join(health["reasons"])]
    for process, numbers in sample.status["processes"].items():
        told += ["", process, *number_lines(numbers)]
    say_lines("\n".join(map(escape_unprintable, told)))


def number_lines(numbers: Mapping[str, Any]) -> list[str]:
    """A line for each number, of a histogram its mean."""
    found = []
    for name, value in numbers.items():
        shown = name.removeprefix("ingest_").removesuffix("_total").replace("_", " ")
        if name.endswith("_sum"):
            continue
        if name.endswith("_count"):
            base = name.removesuffix("_count")
            mean = numbers[f"{base}_sum"] / value if value else 0.0
            if base.startswith(OF_KINDS):
                found.append(f"  {f'settled, {base.removeprefix(OF_KINDS)}':<28} {_number(value):>16}")
            shown, value = f"{base.removeprefix('ingest_').replace('_', ' ')}, mean", mean
        found.append(f"  {shown:<28} {_number(value):>16}")
    return found


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


@click.command("top")
@click.option(
    "--every", default=TOP_EVERY_S, show_default=True, type=FiniteRange(0.5, 3600), metavar="SECONDS"
)
@with_settings
def top_command(settings: Origins, every: float) -> None:
    """The same, live in the terminal; q or Ctrl-C leaves."""
    import sys

    from rich.live import Live

    from ingest.observe.asking import where

    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise Misconfigured("top", "is for a terminal: 'ingest status --json' is for programs")
    config = of_running_engine(settings.config, by_metrics=True)
    planned = load_plan(config.plan_file)
    before: Sample | None = None
    with _told_of_fleet(config) as ask, _keys() as pressed, Live(screen=True, auto_refresh=False) as live:
        while True:
            now, away = None, ""
            try:
                now = _sample(config)
            except Unavailable as error:
                away = str(error)
            fleet, quarantine, why = ask()
            found = overview(now, before if now else None, fleet, quarantine, planned)
            live.update(_picture(found, where(config), away or why), refresh=True)
            before = now
            if pressed(every):
                return


def _picture(found: Mapping[str, Any], where: str, away: str) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines(found, where):
        style = ("red" if found["trouble"] else "green") if name in ("wrong", "to do") else ""
        table.add_row(name, Text(escape_unprintable(text), style=style))
    parts: list[Any] = [
        Text(f"ingest top   {time.strftime('%H:%M:%S')}   q leaves", style="reverse"),
        Text(),
        table,
    ]
    if found["fleet"] is not None:
        parts += [Text(), _bars(found["fleet"])]
    if away:
        parts += [Text(), Text(escape_unprintable(away), style="red")]
    return Group(*parts)


def _bars(fleet: Mapping[str, Any]) -> Any:
    """Silence over interval: how many nodes."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        title="silence, in usual intervals",
        title_justify="left",
    )
    for name in ("up to", "nodes", ""):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    most = max(1, *fleet["silence"])
    for limit, count in zip([*map(str, fleet["silence_limits"]), "more"], fleet["silence"], strict=True):
        late = limit == "more" or float(limit) > 2
        table.add_row(
            limit, f"{count:,}", Text("█" * round(40 * count / most), style="red" if late else "green")
        )
    return table


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds and says whether somebody wants to leave."""
    import select
    import sys
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def pressed(seconds: float) -> bool:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            if select.select([fd], [], [], left_s)[0] and sys.stdin.read(1) in ("q", "Q", "", "\x1b"):
                return True
        return False

    tty.setcbreak(fd)
    try:
        yield pressed
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
