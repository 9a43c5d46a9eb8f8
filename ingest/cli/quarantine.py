"""``ingest quarantine``: messages that could not be stored."""

from __future__ import annotations

import json
import sys

import click
import msgspec

from ingest.cli.printing import say, say_json
from ingest.cli.settings import database, publisher, with_settings
from ingest.config.loading import Origins
from ingest.core.printable import escape_unprintable
from ingest.errors import Misconfigured, Refused


@click.group("quarantine")
def quarantine_group() -> None:
    """Messages that could not be stored."""


@quarantine_group.command("list")
@click.option("--reason")
@click.option("--kind", metavar="KIND", help="catalog, facts, report, deactivation, ...")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10**9))
@with_settings
def list_command(settings: Origins, reason: str | None, kind: str | None, limit: int) -> None:
    """The newest first; behind the time how many messages a row counts: the newest of them is kept."""
    from ingest.config.kinds import kinds
    from ingest.store.quarantine import entries

    names = {command: one.name for one in kinds() for command in one.commands}
    if kind is not None and kind not in names.values():
        known = ", ".join(dict.fromkeys(names.values()))
        raise Misconfigured("--kind", f"{kind!r} is none of {known}")
    with database(settings.config) as connection:
        for found in entries(connection, reason=reason, kind=kind, kinds=names, limit=limit):
            # What producers wrote is made harmless: this is read on terminals.
            producer = f" (from {found.producer})" if found.producer else ""
            say(
                f"{found.id:>6}  {found.last_seen:%Y-%m-%d %H:%M:%S}  {found.attempts}x  {found.reason:<22} "
                f"{escape_unprintable(found.kind):<12} "
                f"{escape_unprintable(found.certname or '-'):<30} {found.detail}{producer}"
            )


@quarantine_group.command("show")
@click.argument("number", type=int)
@with_settings
def show_command(settings: Origins, number: int) -> None:
    """All that is kept of one message, as JSON; the body as text."""
    from ingest.store.quarantine import entry

    with database(settings.config) as connection:
        found = msgspec.to_builtins(entry(connection, number), builtin_types=(bytes,))
    del found["kind"]  # its headers and its body say that
    found["body_digest"] = found["body_digest"] and found["body_digest"].hex()
    found["body"] = None if found["body"] is None else found["body"].decode("utf-8", "backslashreplace")
    say_json(json.dumps(found, indent=2).encode())


@quarantine_group.command("export")
@click.argument("number", type=int)
@with_settings
def export_command(settings: Origins, number: int) -> None:
    """The kept body, as the bytes it is, to standard output."""
    from ingest.store.quarantine import entry

    with database(settings.config) as connection:
        found = entry(connection, number)
    if found.body is None:
        raise Refused(f"the body of {number} was not kept: {found.body_note}")
    if sys.stdout.isatty():
        raise Refused(
            f"the body of {number} may hold anything: send it to a file or a program, not to a terminal"
        )
    sys.stdout.buffer.write(found.body)


@quarantine_group.command("retry")
@click.argument("numbers", type=int, nargs=-1)
@click.option("--reason", help="all that are there for this reason and can be given back")
@with_settings
def retry_command(settings: Origins, numbers: tuple[int, ...], reason: str | None) -> None:
    """Give messages back to the queue as they came, and forget them here.

    A body of which something was redacted, cut or dropped is not the message any more: it stays here.
    """
    if not numbers and reason is None:
        raise click.UsageError("name the messages by their numbers, or a --reason")
    from ingest.engine.giving_back import give_back

    with database(settings.config, writes=True) as connection, publisher(settings.config) as opened:
        done = give_back(connection, opened, numbers=numbers, reason=reason)
    say(f"{done.given} given back to {', '.join(opened.used) or 'nowhere'}")
    if done.gone < done.given:
        say(f"{done.given - done.gone} of them are here again: something newer came meanwhile")


@quarantine_group.command("drop")
@click.argument("numbers", type=int, nargs=-1, required=True)
@with_settings
def drop_command(settings: Origins, numbers: tuple[int, ...]) -> None:
    """Throw messages away."""
    from ingest.store.quarantine import drop

    with database(settings.config, writes=True) as connection:
        say(f"{drop(connection, list(numbers))} dropped")
