"""The command line: reads settings, calls one function, turns its errors into one line and an exit code."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from ingest.config import SETTINGS, Config, Origins, load, redact
from ingest.errors import IngestError, Misconfigured, Refused, Unavailable

# docs/operating.md lists these.
EXIT_UNEXPECTED, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 3, 5, 130


def main() -> None:
    """The console script."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except IngestError as error:
        if debug:
            raise
        click.echo(f"ingest: {error}", err=True)
        sys.exit(_code(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has left
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        click.echo(f"ingest: {type(error).__name__}: {error} (--debug shows where)", err=True)
        sys.exit(EXIT_UNEXPECTED)
    sys.exit(code if isinstance(code, int) else 0)


def _code(error: IngestError) -> int:
    if isinstance(error, Misconfigured):
        return EXIT_USAGE
    return EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_REFUSED


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds a flag for each setting, and gives the command ``settings``: the configuration and its origins."""

    @click.pass_context
    def command(
        context: click.Context, /, config_file: Path | None, puppet_conf: Path | None, **given: Any
    ) -> Any:
        flags = {setting.name: given.pop(setting.name) for setting in SETTINGS}
        puppet_values = None
        if puppet_conf is not None:
            from ingest.puppetconf import read_puppet_conf

            puppet_values = read_puppet_conf(puppet_conf)
        settings = load(flags, os.environ, config_file, puppet_values)
        return context.invoke(function, settings=settings, **given)

    command.__doc__ = function.__doc__
    command.__click_params__ = list(getattr(function, "__click_params__", ()))  # type: ignore[attr-defined]
    for setting in reversed(SETTINGS):
        flag = setting.name.replace("_", "-")
        name = f"--{flag}/--no-{flag}" if setting.type is bool else f"--{flag}"
        text = f"{setting.help}  [default: {redact(setting.name, setting.default)}]"
        # Values are checked where all sources are: one rule, one message.
        kind = {} if setting.type is bool else {"type": str, "metavar": setting.type.__name__.upper()}
        click.option(name, setting.name, default=None, help=text, **kind)(command)
    click.option(
        "--puppet-conf",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="take queue and database from a puppet.conf",
    )(command)
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="instead of ./ingest.toml",
    )(command)
    command.__name__ = function.__name__
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="puppet-ingest", prog_name="ingest")
def cli() -> None:
    """Takes Puppet catalogs from a message queue and keeps PostgreSQL equal to the newest of every node.

    Every setting is a flag here, a key of ingest.toml and a variable INGEST_NAME; flags win, then variables.
    """


@cli.command("run")
@with_settings
def run_command(settings: Origins) -> int:
    """Run the engine until SIGTERM or Ctrl-C; both let it finish what it has."""
    from ingest.run import run

    return run(settings.config)


@cli.command("demo")
@click.option("--seconds", default=20.0, help="how long the small fleet publishes", show_default=True)
@click.option("--nodes", default=30, help="its size", show_default=True)
@with_settings
def demo_command(settings: Origins, seconds: float, nodes: int) -> int:
    """Show the whole way in a temporary directory: a fleet publishes, the engine stores, queries answer."""
    from ingest.demo import demo

    return demo(settings.config, seconds=seconds, nodes=nodes)


@cli.command("config")
@with_settings
def config_command(settings: Origins) -> None:
    """Print every setting, and where its value comes from."""
    width = max(len(setting.name) for setting in SETTINGS)
    for setting in SETTINGS:
        value = getattr(settings.config, setting.name)
        shown = json.dumps(redact(setting.name, value)) if setting.type is str else json.dumps(value)
        click.echo(f"{setting.name:<{width}} = {shown}  # {settings.origins[setting.name]}")


@cli.command("migrate")
@click.option("--grant-to", metavar="ROLE", help="let this role do what 'ingest run' needs, no more")
@click.option("--grant-read-to", metavar="ROLE", help="let this role read the views that collectors need")
@with_settings
def migrate_command(settings: Origins, grant_to: str | None, grant_read_to: str | None) -> None:
    """Bring the database to this program's schema."""
    from ingest.store.migrate import grant, migrate, schema_version

    connection = _database(settings.config)
    done = migrate(connection, click.echo)
    click.echo(
        f"schema {schema_version(connection)}, {'up to date' if not done else f'{done} migrations ran'}"
    )
    if grant_to or grant_read_to:
        grant(connection, grant_to, grant_read_to)
        click.echo("granted to " + ", ".join(role for role in (grant_to, grant_read_to) if role))


@cli.command("gc")
@with_settings
def gc_command(settings: Origins) -> None:
    """Delete what no node has any more, expire and purge nodes; safe while the engine runs."""
    from ingest.run import keep_house_once

    for name, count in keep_house_once(settings.config, _database(settings.config)).items():
        click.echo(f"{name:<22} {count}")


@cli.command("publish")
@click.argument("files", nargs=-1, required=True, metavar="FILE...|-")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="a STOMP header for every message"
)
@with_settings
def publish_command(settings: Origins, files: tuple[str, ...], headers: tuple[str, ...]) -> None:
    """Send catalogs, in any format, to the queue; - reads one from standard input."""
    from rich.progress import Progress

    from ingest.publish import Publisher

    extra = {}
    for header in headers:
        name, equals, value = header.partition("=")
        if not equals:
            raise Misconfigured("--header", f"{header!r} is not NAME=VALUE")
        extra[name] = value
    if not settings.config.queue_source:
        raise Misconfigured("--queue-source", "name the broker, for example stomp://127.0.0.1:61613")
    publisher = Publisher(settings.config)
    try:
        with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("publishing", total=len(files))
            done = publisher.publish(
                ((_read(file), extra) for file in files), lambda n: progress.update(task, completed=n)
            )
    finally:
        publisher.close()
    click.echo(f"published {done}, each with the broker's receipt")


@cli.command("show")
@click.argument("certname")
@with_settings
def show_command(settings: Origins, certname: str) -> None:
    """Print a node's stored catalog as wire-form JSON."""
    from ingest.core.wire import canonical
    from ingest.store.reading import read_catalog

    sys.stdout.buffer.write(canonical(read_catalog(_database(settings.config), certname)) + b"\n")


@cli.group("query")
def query_group() -> None:
    """Ask what is stored."""


@query_group.command("exported")
@click.option("--type", "type_", required=True, metavar="T", help="resource type, capitalised")
@click.option("--tag", "tags", multiple=True, help="must be among its tags; several: all of them")
@click.option("--title")
@with_settings
def exported_command(settings: Origins, type_: str, tags: tuple[str, ...], title: str | None) -> None:
    """What a collector would get: one JSON object a line, ordered by certname and title."""
    from ingest.core.wire import canonical_json
    from ingest.store.reading import exported_resources

    for resource in exported_resources(_database(settings.config), type_, tags=tags, title=title):
        sys.stdout.buffer.write(canonical_json(resource) + b"\n")


@cli.command("status")
@with_settings
def status_command(settings: Origins) -> int:
    """What a running engine says about itself."""
    url = f"http://{settings.config.metrics_host}:{settings.config.metrics_port}/status.json"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            status = json.load(answer)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Unavailable(
            f"no engine answers at {url} (--metrics-port): {getattr(error, 'reason', error)}"
        ) from error
    health = status["health"]
    click.echo("ready" if health["ready"] else "not ready: " + "; ".join(health["reasons"]))
    for process, numbers in status["processes"].items():
        shown = "  ".join(f"{name.removeprefix('ingest_')}={value:g}" for name, value in numbers.items())
        click.echo(f"{process:<12} {shown}")
    return 0 if health["healthy"] else EXIT_UNAVAILABLE


@cli.group("quarantine")
def quarantine_group() -> None:
    """Messages that could not be stored."""


@quarantine_group.command("list")
@click.option("--reason")
@click.option("--limit", default=100, show_default=True)
@with_settings
def quarantine_list(settings: Origins, reason: str | None, limit: int) -> None:
    """The newest first."""
    from ingest.store.quarantine import entries

    for entry in entries(_database(settings.config), reason=reason, limit=limit):
        click.echo(
            f"{entry.id:>6}  {entry.last_seen:%Y-%m-%d %H:%M:%S}  {entry.attempts}x  {entry.reason:<22} "
            f"{entry.certname or '-':<30} {entry.detail}"
        )


@quarantine_group.command("show")
@click.argument("number", type=int)
@with_settings
def quarantine_show(settings: Origins, number: int) -> None:
    """All that is kept of one message, as JSON; the body as text."""
    from ingest.store.quarantine import entry

    found = msgspec.to_builtins(entry(_database(settings.config), number), builtin_types=(bytes,))
    found["body"] = None if found["body"] is None else found["body"].decode("utf-8", "backslashreplace")
    click.echo(json.dumps(found, indent=2))


@quarantine_group.command("export")
@click.argument("number", type=int)
@with_settings
def quarantine_export(settings: Origins, number: int) -> None:
    """The kept body, as the bytes it is, to standard output."""
    from ingest.store.quarantine import entry

    found = entry(_database(settings.config), number)
    if found.body is None:
        raise Refused(f"the body of {number} was not kept: {found.body_note}")
    sys.stdout.buffer.write(found.body)


@quarantine_group.command("retry")
@click.argument("numbers", type=int, nargs=-1, required=True)
@with_settings
def quarantine_retry(settings: Origins, numbers: tuple[int, ...]) -> None:
    """Give messages back to the queue and forget them here."""
    from ingest.publish import Publisher
    from ingest.store.quarantine import drop, entry

    if not settings.config.queue_source:
        raise Misconfigured("--queue-source", "name the broker, for example stomp://127.0.0.1:61613")
    connection = _database(settings.config)
    found = [entry(connection, number) for number in numbers]
    for entry_ in found:
        if entry_.body is None:
            raise Refused(f"the body of {entry_.id} was not kept: {entry_.body_note}")
    publisher = Publisher(settings.config)
    try:
        keep = ("certname", "producer", "producer_timestamp", "environment", "command", "version")
        publisher.publish(
            (e.body or b"", {name: e.headers[name] for name in keep if name in e.headers}) for e in found
        )
    finally:
        publisher.close()
    click.echo(f"{drop(connection, list(numbers))} given back to {settings.config.destination}")


@quarantine_group.command("drop")
@click.argument("numbers", type=int, nargs=-1, required=True)
@with_settings
def quarantine_drop(settings: Origins, numbers: tuple[int, ...]) -> None:
    """Throw messages away."""
    from ingest.store.quarantine import drop

    click.echo(f"{drop(_database(settings.config), list(numbers))} dropped")


def _database(config: Config) -> Any:
    from ingest.run import open_database

    if not config.database:
        raise Misconfigured("--database", "name the database, as a libpq conninfo or a URI")
    return open_database(config)


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise Misconfigured(file, error.strerror or str(error)) from error
