"""``bench/loadgen``: a simulated fleet of Puppet nodes, and reports on what became of what they sent."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from ingest.config.loading import load
from ingest.core.passwords import hide_passwords, show_addresses
from ingest.core.quantities import duration_s
from ingest.engine.signals import leave_on_signals
from ingest.errors import IngestError, Misconfigured, Unavailable
from ingest.transport.publisher import Publisher
from tools.loadgen.alone import publish_alone
from tools.loadgen.fleet import DEFAULT_MIX, KINDS, Fleet, parse_forms, parse_kinds, parse_mix
from tools.loadgen.progress import console
from tools.loadgen.report import markdown, summarise
from tools.loadgen.results import VERSION, About, Results
from tools.loadgen.schedule import SCENARIOS
from tools.loadgen.simulation import Plan, require_database, simulate
from tools.loadgen.watching import POLL_S

# What one core can publish at most. `bench/loadgen --drop` says what yours can; here it was 12000/s of 190 KiB, and
# 2.7 GB/s of larger ones.
PER_S_MAX = 12000
BYTES_PER_S_MAX = 3e9
INTERVAL_MIN_S = 1.0  # below that two catalogs of a node would be on their way at a time as a rule
EXIT_DIFFERENT, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_INTERRUPTED = 1, 2, 3, 130


def main() -> None:
    """Errors as one line; the exit code says what kind."""
    leave_on_signals()
    try:
        sys.exit(cli.main(prog_name="bench/loadgen", standalone_mode=False))
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        click.echo(f"loadgen: {error.format_message()}", err=True)
        sys.exit(EXIT_USAGE)
    except IngestError as error:
        # The publisher is the engine's, and so are its settings' names.
        text = hide_passwords(str(error)).replace("--queue-source", "--broker")
        click.echo(f"loadgen: {text}", err=True)
        sys.exit(EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_USAGE)


class _RunByDefault(click.Group):
    """``bench/loadgen --nodes 3000`` is ``bench/loadgen run --nodes 3000``."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        if arguments and arguments[0] not in self.commands and arguments[0] not in ("--help", "-h"):
            arguments = ["run", *arguments]
        return super().parse_args(context, arguments)


@click.group(cls=_RunByDefault, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Simulates a fleet whose nodes publish facts, catalogs and reports, and says what became of them.

    Without a command: run.
    """


@cli.command("run")
@click.option("--nodes", default=3000, show_default=True)
@click.option("--interval", default="30m", show_default=True, help="between two runs of a node")
@click.option("--speed", default=1.0, show_default=True, help="how many times faster than real time")
@click.option("--runs", type=float, help="intervals to simulate  [default: 1]")
@click.option("--duration", help="real time to simulate for, like 60s, instead of --runs")
@click.option("--scenario", default="steady", show_default=True, help=", ".join(SCENARIOS))
@click.option(
    "--mix", help="how catalogs change, like " + ",".join(f"{k}={v:g}" for k, v in DEFAULT_MIX.items())
)
@click.option(
    "--formats", default="wire", show_default=True, help="wire, native, legacy; several share the fleet"
)
@click.option("--resources", type=int, help="of every catalog  [default: 100 to 4000, as in real ones]")
@click.option(
    "--templates", type=click.Path(path_type=Path, exists=True, file_okay=False), help="real catalogs"
)
@click.option("--seed", default=1, show_default=True)
@click.option("--broker", default="stomp://127.0.0.1:61613", show_default=True)
@click.option(
    "--destination", default="/queue/catalog", show_default=True, help="of all, if it is another than that"
)
@click.option("--facts-destination", help="[default: as the engine's]")
@click.option("--reports-destination", help="[default: as the engine's]")
@click.option("--kinds", default=",".join(KINDS), show_default=True, help="what a run sends")
@click.option(
    "--database", help="conninfo of the engine's database; without it nothing is watched or compared"
)
@click.option(
    "--prime/--no-prime", default=True, help="store every node once before the clock starts  [default: yes]"
)
@click.option("--drop", is_flag=True, help="publish to a sink instead: what the generator can do by itself")
@click.option("--output", type=click.Path(path_type=Path), help="directory of the raw results")
def run_command(
    *, nodes: int, interval: str, speed: float, runs: float | None, duration: str | None, scenario: str,
    mix: str | None, formats: str, resources: int | None, templates: Path | None, seed: int, broker: str,
    destination: str, facts_destination: str | None, reports_destination: str | None, kinds: str,
    database: str | None, prime: bool, drop: bool, output: Path | None,
) -> int:  # fmt: skip
    """Simulate a fleet."""
    plan = _plan(scenario, interval, speed, runs, duration, seed, prime)
    forms = parse_forms(formats)
    fleet = Fleet(
        nodes, seed, mix=parse_mix(mix) if mix else DEFAULT_MIX, forms=forms, templates=templates,
        resources=resources, kinds=parse_kinds(kinds),
    )  # fmt: skip
    if drop:
        click.echo(msgspec.json.encode(publish_alone(fleet)).decode())
        return 0
    _require_possible(fleet, plan)
    results = Results(output or Path(f"loadgen-{datetime.now(UTC):%Y%m%d-%H%M%S}"))
    with ExitStack() as stack:
        settings = {"queue_source": broker, "destination": destination, "facts_destination": facts_destination,
                    "reports_destination": reports_destination}  # fmt: skip
        publisher = Publisher(load({k: v for k, v in settings.items() if v is not None}, {}).config)
        stack.callback(publisher.close)
        if database is not None:
            require_database(database)
        results.begin(
            About(
                VERSION, datetime.now(UTC).isoformat(timespec="seconds"), scenario, nodes, plan.interval_s, speed,
                plan.duration_s, forms, fleet.mix, seed, str(templates) if templates else None,
                show_addresses(broker), POLL_S if database is not None else None, fleet.mean_bytes,
                fleet.kinds,
            )
        )  # fmt: skip
        try:
            ended = simulate(plan, fleet, publisher, database, results)
        except Unavailable:
            console.print(
                f"what there is until then: bench/loadgen report {results.directory}", highlight=False
            )
            raise
    results.end(ended)
    _report(results, results.directory / "report.html")
    console.print(f"raw results and report.html: {results.directory}", highlight=False, soft_wrap=True)
    if ended.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_DIFFERENT if ended.differences else 0


@cli.command("report")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="also write a page with pictures")
def report_command(directory: Path, html: Path | None) -> int:
    """Report on the raw results of a run."""
    _report(Results(directory), html)
    return 0


def _report(results: Results, html: Path | None) -> None:
    summary = summarise(results)
    if html is not None:
        # Half a second to import, and Markdown has no pictures.
        from tools.loadgen.page import page

        try:
            html.write_text(page(summary), encoding="utf-8")
        except OSError as error:
            raise Misconfigured("--html", f"{html}: {error.strerror}") from error
    click.echo(markdown(summary), nl=False)


def _plan(
    scenario: str, interval: str, speed: float, runs: float | None, duration: str | None, seed: int, prime: bool
) -> Plan:  # fmt: skip
    if scenario not in SCENARIOS:
        raise Misconfigured("--scenario", f"{scenario!r} is none of {', '.join(SCENARIOS)}")
    interval_s = _seconds("--interval", interval)
    if speed <= 0:
        raise Misconfigured("--speed", f"{speed:g} would never end: more than 0")
    if runs is not None and duration is not None:
        raise Misconfigured("--duration", "say either how many runs or how long")
    if runs is not None and runs <= 0:
        raise Misconfigured("--runs", f"{runs:g} simulates nothing: more than 0")
    if duration is not None:
        duration_s_ = _seconds("--duration", duration) * speed
    else:
        duration_s_ = (1 if runs is None else runs) * interval_s
    return Plan(scenario, interval_s, duration_s_, speed, seed, prime)


def _seconds(flag: str, text: str) -> float:
    try:
        found = duration_s(text)
    except ValueError:
        raise Misconfigured(flag, f"{text!r} is not a duration like 30m") from None
    if found <= 0:
        raise Misconfigured(flag, "it must be longer than nothing")
    return found


def _require_possible(fleet: Fleet, plan: Plan) -> None:
    """What no generator on one core can send would only say how slow the generator is."""
    interval_s = plan.interval_s / plan.speed
    if interval_s < INTERVAL_MIN_S:
        raise Misconfigured(
            "--speed",
            f"a node would run again after {interval_s * 1000:.3g} ms, while its last catalog is on its way: "
            f"at least {INTERVAL_MIN_S:g} s; a longer interval, or less speed",
        )
    per_s = len(fleet.nodes) / interval_s
    most = min(PER_S_MAX, BYTES_PER_S_MAX / fleet.mean_bytes)
    if per_s > most:
        raise Misconfigured(
            "--speed",
            f"{len(fleet.nodes)} nodes every {interval_s:.3g} s are {per_s:.0f} catalogs a second of "
            f"{fleet.mean_bytes / 1024:.0f} KiB: a generator on one core publishes {most:.0f} at most; fewer nodes, "
            "a longer interval, or less speed",
        )
