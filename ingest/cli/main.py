"""The command line: reads settings, calls one function, turns its errors into one line and an exit code."""

from __future__ import annotations

import os
import sys

import click

from ingest.cli.archive import export_command, import_command
from ingest.cli.capacity import capacity_group
from ingest.cli.comparing import compare_command
from ingest.cli.completion import VARIABLE, completion_command
from ingest.cli.configuring import config_group
from ingest.cli.doctor import doctor_command
from ingest.cli.joining import puppet_command
from ingest.cli.nodes import node_group, nodes_command
from ingest.cli.printing import complain, say
from ingest.cli.publishing import publish_command
from ingest.cli.quarantine import quarantine_group
from ingest.cli.reading import query_group, show_command
from ingest.cli.settings import database, of_running_engine, warn_of_passwords, with_settings
from ingest.cli.values import FiniteRange
from ingest.cli.watching import status_command, top_command
from ingest.config.loading import Origins
from ingest.engine.signals import leave_on_signals
from ingest.errors import IngestError, Misconfigured, Unavailable
from ingest.observe.lean import load_libraries

# docs/operating.md lists these.
EXIT_UNEXPECTED, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_REFUSED, EXIT_INTERRUPTED = 1, 2, 3, 5, 130


def main() -> None:
    """The console script."""
    _open_standard_streams()
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    leave_on_signals()
    try:
        code = cli.main(prog_name="ingest", standalone_mode=False, complete_var=VARIABLE)
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        complain(error.format_message() + _hint(error))
        sys.exit(EXIT_USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has left
        sys.exit(EXIT_UNEXPECTED)  # as click does when it notices first
    except Exception as error:
        if debug:
            from ingest.observe.log import show_traceback

            sys.excepthook = show_traceback
            raise
        if isinstance(error, IngestError):
            complain(str(error) + _notes(error))
            sys.exit(_code(error))
        if isinstance(error, UnicodeEncodeError) and not all(map(_is_text, sys.argv)):
            complain("an argument is not text in UTF-8")
            sys.exit(EXIT_USAGE)
        complain(f"{type(error).__name__}: {error} (--debug shows where){_notes(error)}")
        sys.exit(EXIT_UNEXPECTED)
    sys.exit(code if isinstance(code, int) else 0)


def _open_standard_streams() -> None:
    """Those that whoever started us has closed: the next socket would get their number, and be written to."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  for good


def _is_text(argument: str) -> bool:
    """Bytes that are not UTF-8 arrive as lone surrogates."""
    return argument.isascii() or not any("\ud800" <= character <= "\udfff" for character in argument)


def _notes(error: Exception) -> str:
    return "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" ('{context.command_path} --help' tells more)" if context is not None else ""


def _code(error: IngestError) -> int:
    if isinstance(error, Misconfigured):
        return EXIT_USAGE
    return EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_REFUSED


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="puppet-ingest", prog_name="ingest")
def cli() -> None:
    """Takes Puppet catalogs from a message queue and keeps PostgreSQL equal to the newest of every node.

    Every setting is a flag here, a key of ingest.toml and a variable INGEST_NAME; flags win, then variables.
    """


for command in (
    publish_command,
    show_command,
    query_group,
    status_command,
    top_command,
    quarantine_group,
    capacity_group,
    config_group,
    doctor_command,
    export_command,
    import_command,
    compare_command,
    nodes_command,
    node_group,
    completion_command,
):
    cli.add_command(command)


config_group.add_command(puppet_command)


@cli.command("run")
@with_settings
def run_command(settings: Origins) -> int:
    """Run the engine until SIGTERM or Ctrl-C; both let it finish what it has."""
    load_libraries()
    from ingest.engine.examination import require_settings
    from ingest.engine.run import run

    require_settings(settings.config)  # before a word in the log, and before anything embedded is started
    warn_of_passwords(settings)
    return run(settings.config, settings.again, settings.retired)


@cli.command("serve")
@with_settings
def serve_command(settings: Origins) -> int:
    """Serve PuppetDB's HTTP interface until SIGTERM or Ctrl-C: commands go to the queue, queries to the database."""
    try:
        from ingest.front.serving import serve
    except ModuleNotFoundError as error:
        raise Misconfigured("serve", f"{error.name} is missing: pip install 'puppet-ingest[http]'") from error

    warn_of_passwords(settings)
    config = settings.config
    if not (config.database and config.queue_source):
        config = of_running_engine(config)
    return serve(config)


@cli.command("demo")
@click.option(
    "--seconds",
    default=20.0,
    help="how long the small fleet publishes",
    show_default=True,
    type=FiniteRange(0, 3600),
)
@click.option("--nodes", default=30, help="its size", show_default=True, type=click.IntRange(1, 1000))
@with_settings
def demo_command(settings: Origins, seconds: float, nodes: int) -> int:
    """Show the whole way in a temporary directory: a fleet publishes, the engine stores, queries answer."""
    from ingest.cli.demo import demo

    return demo(settings.config, seconds=seconds, nodes=nodes)


@cli.command("migrate")
@click.option("--grant-to", metavar="ROLE", help="let this role do what 'ingest run' needs, no more")
@click.option("--grant-read-to", metavar="ROLE", help="let this role read the views that collectors need")
@click.option(
    "--grant-serve-to", metavar="ROLE", help="let this role read what queries of 'ingest serve' read"
)
@with_settings
def migrate_command(
    settings: Origins, grant_to: str | None, grant_read_to: str | None, grant_serve_to: str | None
) -> None:
    """Bring the database to this program's schema."""
    from ingest.store.migrate import grant, migrate, note_on_open, schema_version

    with database(settings.config, writes=True) as connection:
        done = migrate(connection, say)
        state = f"{done} migrations ran" if done else "up to date"
        say(f"schema {schema_version(connection)}, {state}")
        if connection.pinned.home.is_open:
            complain(f"note: {note_on_open(connection.pinned.home)}")
        roles = (grant_to, grant_read_to, grant_serve_to)
        if any(role is not None for role in roles):
            grant(connection, *roles)
            say("granted to " + ", ".join(role for role in roles if role is not None))


@cli.command("gc")
@with_settings
def gc_command(settings: Origins) -> None:
    """Delete what no node has any more, expire and purge nodes; safe while the engine runs."""
    from ingest.engine.run import keep_house_once

    with database(settings.config, writes=True) as connection:
        for name, count in keep_house_once(settings.config, connection).items():
            say(f"{name:<22} {count}")
