"""``ingest capacity``: what a fleet needs, from service times measured here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ingest.cli.printing import say, say_lines
from ingest.cli.settings import database, with_settings
from ingest.cli.values import Duration, FiniteRange, Rate, Size
from ingest.config.loading import Origins
from ingest.config.settings import Config
from ingest.core.delivery.destinations import kinds_of
from ingest.core.delivery.importance import RANKS
from ingest.errors import Misconfigured

if TYPE_CHECKING:
    from ingest.capacity.calibration import Calibration
    from ingest.capacity.cluster import Cluster
    from ingest.capacity.fleet import Fleet
    from ingest.capacity.world import Setup

INTERVAL_S = 1800.0  # runinterval, Puppet's own default
TEMPLATES_HELP = (
    "real catalogs in wire form instead of made-up ones: DIR/*.json or DIR/*/run-1/catalog-wire.json; beside them facts and "
    "reports: DIR/facts/*.json, DIR/reports/*.json, or facts-wire.json and report-wire.json as for catalogs"
)


@click.group("capacity", invoke_without_command=True)
@click.option("--calibration", "calibration_file", type=click.Path(path_type=Path), metavar="FILE",
              help="a saved calibration; without one this machine is measured first")  # fmt: skip
@click.option("--nodes", type=int, help="how many nodes there are")
@click.option("--from-database", is_flag=True, help="the fleet as --database has it: nodes, interval, sizes")
@click.option("--interval", "interval_s", type=Duration(), help="how often each reports  [default: 30m]")
@click.option("--run", "run_s", type=Duration(), default="20s", show_default=True,
              help="how long a run of the agent takes at least")  # fmt: skip
@click.option("--unchanged", type=float, default=0.9, show_default=True, help="share of unchanged catalogs")
@click.option("--parameters", type=float, help="share that differs in a few parameters  [default: the rest]")
@click.option(
    "--upgrade", type=float, help="share after a module upgrade  [default: a tenth of what changes]"
)
@click.option("--reports-changed", type=float, default=0.02, show_default=True,
              help="share of reports in which something was changed")  # fmt: skip
@click.option("--catalog-size", "body_bytes", type=Size(), help="mean  [default: the calibration's]")
@click.option("--roles", type=int, help="kinds of nodes  [default: the calibration's]")
@click.option(
    "--growth", type=float, default=0.0, show_default=True, help="of the fleet in a year, 0.1: a tenth"
)
@click.option("--fresh-within", "target_s", type=Duration(), default="60s", show_default=True,
              help="what p99 freshness has to keep to")  # fmt: skip
@click.option("--outage", "outage_s", type=Duration(), default="1h", show_default=True,
              help="how long an outage to recover from")  # fmt: skip
@click.option("--cores", type=click.IntRange(1, 1024), help="of the machine  [default: the calibration's]")
@click.option(
    "--instances", type=click.IntRange(1, 64), default=1, show_default=True, help="machines with an engine"
)
@click.option(
    "--brokers", type=click.IntRange(1, 9), help="members of a quorum queue, on machines of their own"
)
@click.option("--standbys", type=click.IntRange(0, 9), help="of PostgreSQL, that commits wait for")
@click.option("--replicas", type=click.IntRange(0, 64), help="of PostgreSQL, for queries")
@click.option(
    "--fleet-queries", type=FiniteRange(0), help="queries a second that go through what all nodes have"
)
@click.option("--network", "network_bytes_s", type=Rate(), help="of each machine, each way  [default: 1Gbit]")
@click.option(
    "--disk", "disk_bytes_s", type=Size(), help="that each machine writes a second  [default: 190MiB]"
)
@click.option("--database-apart", is_flag=True, help="PostgreSQL has a machine of its own, as large")
@click.option("--broker-here", is_flag=True, help="the embedded broker shares the machine")
@click.option("--templates", type=click.Path(path_type=Path), metavar="DIR", help=TEMPLATES_HELP)
@click.option("--output", "outputs", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
              help="report to FILE.html, FILE.md or FILE.json, may be repeated  [default: Markdown to the terminal]")  # fmt: skip
@with_settings
@click.pass_context
def capacity_group(context: click.Context, /, settings: Origins, **options: Any) -> None:
    """What a fleet needs of this engine: a report, from service times measured on this machine.

    Planned are whole runs, which send facts, a catalog and a report; with --kinds only some of these. Reports take disk
    for as long as --report-ttl-s keeps them.

    \b
    ingest capacity --nodes 3000 --interval 30m --unchanged 0.9 --output plan.html
    ingest capacity --nodes 3000 --kinds catalog
    ingest capacity --nodes 100000 --instances 3 --database-apart --brokers 3 --standbys 1 --replicas 1
    ingest capacity calibrate --output calibration.json
    """
    if context.invoked_subcommand is None:
        _report(settings.config, settings.origins, **options)


@capacity_group.command("calibrate")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", required=True, help="where to")
@click.option("--templates", type=click.Path(path_type=Path), metavar="DIR", help=TEMPLATES_HELP)
@with_settings
def calibrate_command(settings: Origins, output: Path, templates: Path | None) -> None:
    """Measure this machine, in about a minute, and save the record.

    It starts an engine, an embedded broker and a PostgreSQL of its own. With --database the measuring is done in a
    new database of that server, dropped afterwards; no other database is touched.
    """
    _require_extra()
    from ingest.capacity.calibration import save

    _require_writable(output)
    # A database that a file or a variable names is the one at work: only who asks for it here has it measured.
    server = settings.config.database if settings.origins["database"] == "--database" else ""
    calibration = _calibrate(settings.config, templates, server)
    save(calibration, output)
    say(f"calibrated in {calibration.seconds:.0f} s: {output}")


def _report(config: Config, origins: dict[str, str], **options: Any) -> None:
    _require_extra()
    from ingest.capacity.calibration import load
    from ingest.capacity.plan import plan
    from ingest.capacity.report import format_of, render
    from ingest.capacity.run_space import Keep
    from ingest.capacity.space import DAY_S

    outputs: tuple[Path, ...] = options["outputs"]
    formats = [format_of(file) for file in outputs]
    for file in outputs:
        _require_writable(file)
    if (options["nodes"] is None) != options["from_database"]:
        raise Misconfigured("--nodes", "say how many nodes there are, or --from-database, one of the two")
    cluster = _cluster(options)
    if options["calibration_file"] is not None:
        calibration = load(options["calibration_file"])
    else:
        _fleet(config, None, options)  # a wrong fleet is told before a minute's measuring
        calibration = _calibrate(config, options["templates"], server="")
    fleet = _fleet(config, calibration, options)
    setup = _setup(config, origins, options, options["cores"] or calibration.machine.cores)
    with _progress() as progress:
        found = plan(
            calibration,
            fleet,
            setup,
            target_s=options["target_s"],
            outage_s=options["outage_s"],
            keep=Keep(config.report_ttl_s / DAY_S, config.resource_events_ttl_s / DAY_S),
            cluster=cluster,
            progress=progress,
        )
    for file, format_ in zip(outputs, formats, strict=True):
        try:
            file.write_text(render(found, format_), encoding="utf-8")
        except OSError as error:
            raise Misconfigured("--output", f"cannot write {file}: {error.strerror}") from error
        say(f"report: {file}")
    if not outputs:
        say_lines(render(found, "markdown"))
    if found.interrupted:
        raise KeyboardInterrupt


def _cluster(options: dict[str, Any]) -> Cluster | None:
    """What was said of the machines beside the engines; None where nothing was."""
    from ingest.capacity.cluster import Cluster

    named = {"fleet_queries": "fleet_queries_per_s"}
    given = {
        named.get(name, name): options[name]
        for name in ("brokers", "standbys", "replicas", "fleet_queries", "network_bytes_s", "disk_bytes_s")
        if options[name] is not None
    }
    if given.get("disk_bytes_s") == 0:
        raise Misconfigured("--disk", "nothing can be written at 0 bytes a second")
    return Cluster(**given) if given or options["instances"] > 1 else None


def _setup(config: Config, origins: dict[str, str], options: dict[str, Any], cores: int) -> Setup:
    """The engine that is planned: as the settings have it, on so many cores."""
    from ingest.capacity.world import Setup

    return Setup(
        cores=cores,
        workers=cores if origins["workers"] == "default" else config.workers,
        writers=config.writers,
        instances=options["instances"],
        database_apart=options["database_apart"],
        broker_here=options["broker_here"],
        linger_s=config.batch_linger_ms / 1000,
        batch_messages_max=config.batch_messages_max,
        window_messages_max=config.window_messages_max,
        window_bytes_max=config.window_bytes_max,
        queues=_queues(config),
    )


def _queues(config: Config) -> tuple[int, int, int]:
    """Which queue each rank waits in. Where one kind alone is planned, it has the window for itself."""
    if len(kinds_of(config.kinds)) == 1:
        return (0, 0, 0)
    catalogs, facts, reports = map(config.destinations.index, config.destinations)
    return catalogs, facts, reports


def _fleet(config: Config, calibration: Calibration | None, options: dict[str, Any]) -> Fleet:
    """The fleet as given, or as the database has it with what was given besides."""
    from ingest.capacity.fleet import Wanted, described, fleet_of
    from ingest.store.capacity import stored_fleet

    nodes, interval_s, body_bytes = options["nodes"], options["interval_s"], options["body_bytes"]
    stored = None
    if options["from_database"]:
        with database(config) as connection:
            stored = stored_fleet(connection)
        nodes, stored_interval_s, stored_bytes = described(stored, calibration)
        interval_s = interval_s or max(stored_interval_s, 1.0)
        body_bytes = body_bytes or stored_bytes
    same = ("run_s", "unchanged", "parameters", "upgrade", "roles", "growth", "reports_changed")
    wanted = Wanted(
        nodes=nodes,
        interval_s=interval_s or INTERVAL_S,
        body_bytes=body_bytes,
        kinds=tuple(RANKS[rank] for rank in kinds_of(config.kinds)),
        **{name: options[name] for name in same},
    )
    fleet = fleet_of(wanted, config.body_bytes_max, calibration)
    if stored is None:
        return fleet
    return msgspec.structs.replace(
        fleet, database_bytes=stored.database_bytes, origin="as the database has it, its changes as given"
    )


def _calibrate(config: Config, templates: Path | None, server: str) -> Calibration:
    """``server``: where to make a database to measure in; empty: a PostgreSQL of its own."""
    from ingest.capacity import run_bodies
    from ingest.capacity.calibrate import calibrate
    from ingest.capacity.catalogs import ROLES, SEED, from_directory, synthetic

    bodies = run_bodies.made_up() if templates is None else run_bodies.from_directory(templates)
    found = synthetic(ROLES, SEED) if templates is None else from_directory(templates, SEED)
    named = "made up" if templates is None else f"{len(found)} of {templates}"
    with _progress() as progress:
        measured = msgspec.structs.replace(config, database=server)
        return calibrate(measured, found, named, progress, bodies=bodies)


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<40}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


def _require_extra() -> None:
    """Raises Misconfigured where the extra is not installed."""
    missing = [
        name for name in ("simpy", "numpy", "jinja2", "matplotlib", "psutil") if find_spec(name) is None
    ]
    if missing:
        raise Misconfigured(
            "ingest capacity", f"{', '.join(missing)} is missing: pip install 'puppet-ingest[capacity]'"
        )


def _require_writable(file: Path) -> None:
    """Told before anything is measured. Raises Misconfigured."""
    if file.is_dir() or not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
        raise Misconfigured("--output", f"cannot write {file}")
