"""Gives quarantined messages back to the queue, as they came, and forgets them when the broker has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from ingest.core.delivery.arrival import Arrivals
from ingest.core.printable import escape_unprintable
from ingest.errors import Refused
from ingest.store.connection import Connection
from ingest.store.quarantine import Quarantined, drop_given_back, entries, entry
from ingest.transport.publisher import Publisher

# What a message says of itself that its body may not: given back to the queue together with the body.
KEPT_HEADERS = ("certname", "producer", "producer_timestamp", "transaction_uuid", "environment", "job_id",
                "command", "version", "content-type")  # fmt: skip
HEADER_BYTES_WHOLE = 1020  # the receiver cuts at 1024, in the middle of no character
ALL = 10**9


class GivenBack(NamedTuple):
    given: int
    gone: int  # of them; the others have been taken the place of by something newer


def give_back(
    connection: Connection, publisher: Publisher, *, numbers: Sequence[int] = (), reason: str | None = None
) -> GivenBack:
    """The named ones, of which each must be as it came, and those of a reason that are. Raises Refused or Unavailable."""
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
            yield whole.body, _rebuild_headers(whole)

    publisher.publish(messages())
    return GivenBack(len(given), drop_given_back(connection, given))


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


def _rebuild_headers(kept: Quarantined) -> dict[str, str]:
    """What the message said of itself; and of its time, where its body does not, that it came when it came first: what the
    node has sent since then stays newer."""
    arrived_at = Arrivals().stamped_at(kept.headers) or kept.first_seen
    said = {name: kept.headers[name] for name in KEPT_HEADERS if name in kept.headers}
    return {"producer_timestamp": arrived_at.isoformat()} | said
