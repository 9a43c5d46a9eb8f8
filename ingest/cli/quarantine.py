"""``ingest quarantine``: messages that could not be stored."""

from __future__ import annotations

import json
import sys

import click
import msgspec

from ingest.cli.settings import database, publisher, with_settings
from ingest.config.settings import Origins
from ingest.core.printable import escape_unprintable
from ingest.errors import Refused

# What a message says of itself that its body may not: given back to the queue together with the body.
KEPT_HEADERS = ("certname", "producer", "producer_timestamp", "transaction_uuid", "environment", "job_id",
                "command", "version", "content-type")  # fmt: skip


@click.group("quarantine")
def quarantine_group() -> None:
    """Messages that could not be stored."""


@quarantine_group.command("list")
@click.option("--reason")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(min=1))
@with_settings
def list_command(settings: Origins, reason: str | None, limit: int) -> None:
    """The newest first."""
    from ingest.store.quarantine import entries

    with database(settings.config) as connection:
        for found in entries(connection, reason=reason, limit=limit):
            # What producers wrote is made harmless: this is read on terminals.
            click.echo(
                f"{found.id:>6}  {found.last_seen:%Y-%m-%d %H:%M:%S}  {found.attempts}x  {found.reason:<22} "
                f"{escape_unprintable(found.certname or '-'):<30} {escape_unprintable(found.detail)}"
            )


@quarantine_group.command("show")
@click.argument("number", type=int)
@with_settings
def show_command(settings: Origins, number: int) -> None:
    """All that is kept of one message, as JSON; the body as text."""
    from ingest.store.quarantine import entry

    with database(settings.config) as connection:
        found = msgspec.to_builtins(entry(connection, number), builtin_types=(bytes,))
    found["body"] = None if found["body"] is None else found["body"].decode("utf-8", "backslashreplace")
    click.echo(json.dumps(found, indent=2))


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
    sys.stdout.buffer.write(found.body)


@quarantine_group.command("retry")
@click.argument("numbers", type=int, nargs=-1, required=True)
@with_settings
def retry_command(settings: Origins, numbers: tuple[int, ...]) -> None:
    """Give messages back to the queue and forget them here."""
    from ingest.store.quarantine import drop, entry

    with database(settings.config, writes=True) as connection:
        found = [entry(connection, number) for number in dict.fromkeys(numbers)]
        for kept in found:
            if kept.body is None:
                raise Refused(f"the body of {kept.id} was not kept: {kept.body_note}")
        with publisher(settings.config) as opened:
            opened.publish(
                (kept.body, {name: kept.headers[name] for name in KEPT_HEADERS if name in kept.headers})
                for kept in found
            )
        click.echo(
            f"{drop(connection, [kept.id for kept in found])} given back to {settings.config.destination}"
        )


@quarantine_group.command("drop")
@click.argument("numbers", type=int, nargs=-1, required=True)
@with_settings
def drop_command(settings: Origins, numbers: tuple[int, ...]) -> None:
    """Throw messages away."""
    from ingest.store.quarantine import drop

    with database(settings.config, writes=True) as connection:
        click.echo(f"{drop(connection, list(numbers))} dropped")
