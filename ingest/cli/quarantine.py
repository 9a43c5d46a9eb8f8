"""``ingest quarantine``: messages that could not be stored."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from ingest.cli.printing import say, say_json
from ingest.cli.settings import database, publisher, with_settings
from ingest.config.loading import Origins
from ingest.core.printable import escape_unprintable
from ingest.errors import Misconfigured, Refused

if TYPE_CHECKING:
    from ingest.store.quarantine import Quarantined

# What a message says of itself that its body may not: given back to the queue together with the body.
KEPT_HEADERS = ("certname", "producer", "producer_timestamp", "transaction_uuid", "environment", "job_id",
                "command", "version", "content-type")  # fmt: skip
HEADER_BYTES_WHOLE = 1020  # the receiver cuts at 1024, in the middle of no character
ALL = 10**9


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
    from ingest.engine.kinds import kinds
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
    from ingest.store.quarantine import drop_given_back, entries, entry

    if not numbers and reason is None:
        raise click.UsageError("name the messages by their numbers, or a --reason")
    with database(settings.config, writes=True) as connection:
        chosen = [entry(connection, number, with_body=False) for number in dict.fromkeys(numbers)]
        for found in chosen:
            if why := _why_not(found):
                raise Refused(f"{found.id} cannot be given back: {why}; it stays, and so do the others")
        if reason is not None:
            listed = [found for found in entries(connection, reason=reason, limit=ALL) if not _why_not(found)]
            chosen += [found for found in listed if found.id not in numbers]
        given: list[Quarantined] = []

        def messages() -> Iterator[tuple[bytes, dict[str, str]]]:
            for found in chosen:
                whole = entry(connection, found.id)
                if why := _why_not(whole) or _has_changed(whole):
                    raise Refused(f"{whole.id} cannot be given back: {why}; it stays")
                given.append(msgspec.structs.replace(whole, body=None))
                assert whole.body is not None
                yield whole.body, _headers_again(whole)

        with publisher(settings.config) as opened:
            opened.publish(messages())
        gone = drop_given_back(connection, given)
        say(f"{len(given)} given back to {', '.join(opened.used) or 'nowhere'}")
        if gone < len(given):
            say(f"{len(given) - gone} of them are here again: something newer came meanwhile")


def _why_not(found: Quarantined) -> str | None:
    """Why what is kept of a message is not the message; None when it is."""
    if found.kept_bytes is None:
        return f"its body was not kept ({escape_unprintable(found.body_note or 'it was empty')})"
    if found.body_note is not None or found.kept_bytes != found.body_bytes:
        return f"its body is not as it came ({escape_unprintable(found.body_note or 'cut')})"
    for name in KEPT_HEADERS:
        value = found.headers.get(name, "")
        # Longer ones were cut; U+FFFD stands for what was no UTF-8; a line end would be another header.
        if len(value.encode()) > HEADER_BYTES_WHOLE or "\ufffd" in value or not value.isprintable():
            return f"its header {name} is not as it came"
    return None


def _has_changed(found: Quarantined) -> str | None:
    if found.body_digest is None or found.body is None:
        return None  # of a version that did not write down the digest
    return None if hashlib.sha256(found.body).digest() == found.body_digest else "its body is not as it came"


def _headers_again(kept: Quarantined) -> dict[str, str]:
    """What the message said of itself; and of its time, where its body does not, that it came when it came first: what the
    node has sent since then stays newer."""
    from ingest.core.delivery.arrival import Arrivals

    arrived_at = Arrivals().stamped_at(kept.headers) or kept.first_seen
    said = {name: kept.headers[name] for name in KEPT_HEADERS if name in kept.headers}
    return {"producer_timestamp": arrived_at.isoformat()} | said


@quarantine_group.command("drop")
@click.argument("numbers", type=int, nargs=-1, required=True)
@with_settings
def drop_command(settings: Origins, numbers: tuple[int, ...]) -> None:
    """Throw messages away."""
    from ingest.store.quarantine import drop

    with database(settings.config, writes=True) as connection:
        say(f"{drop(connection, list(numbers))} dropped")
