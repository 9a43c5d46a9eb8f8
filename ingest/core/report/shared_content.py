"""Events and logs as content: what repeats from run to run, without its time, as a row that reports share."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

from ingest.core import pgcopy
from ingest.core.delivery.work import DIGEST_BYTES
from ingest.core.report.model import Event, Log, ReportedResource
from ingest.errors import Rejected

# PostgreSQL's text refuses U+0000 and lone surrogates; PuppetDB puts U+FFFD for the first.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
LINE_MAX = 2**63 - 1
# A list in a report, when it is read back as JSON: PostgreSQL has jsonb of 256 MiB at most. The largest report of Puppet that was
# seen has 12 thousand events, which is 15 MiB.
SHOWN_BYTES_MAX = 240 * 1024 * 1024
EVENT_SHOWN_BYTES, LOG_SHOWN_BYTES, METRIC_SHOWN_BYTES = (
    700,
    300,
    120,
)  # beside its texts: what its members are called


def clean(text: str | None) -> str | None:
    """As PostgreSQL can hold it."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def value_text(value: Any) -> str:
    """A property's value as JSON, as jsonb can hold it."""
    if isinstance(value, str):
        value = clean(value)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    if "\\u0000" in text or not text.isascii():
        text = _UNSTORABLE.sub("\ufffd", text).replace("\\u0000", "\ufffd")
    return text


class About(NamedTuple):
    """What all events of a resource say alike, as encoded fields. Made once for a resource: its path may be as long as a
    message, and its events as many."""

    name: bytes  # type and title
    place: bytes  # file, line, path, class
    corrective: bool | None


def about(resource: ReportedResource) -> About:
    path = resource.containment_path
    return About(
        pgcopy.text(clean(resource.resource_type)) + pgcopy.text(clean(str(resource.resource_title))),
        b"".join(
            (
                pgcopy.text(clean(resource.file)),
                pgcopy.int8(_line(resource.line)),
                pgcopy.NULL if path is None else text_array(path),
                pgcopy.text(containing_class(path)),
            )
        ),
        resource.corrective_change,
    )


def event_fields(resource: About, event: Event | None) -> bytes:
    """The encoded fields of an event's content behind its digest; without an event the resource was skipped."""
    corrective = resource.corrective if event is None else event.corrective_change
    return b"".join(
        (
            pgcopy.text("skipped" if event is None else clean(event.status)),
            resource.name,
            pgcopy.text(clean(event.property) if event else None),
            pgcopy.text(clean(event.name) if event else None),
            pgcopy.text(clean(event.message) if event else None),
            pgcopy.text(value_text(event.new_value) if event else None),
            pgcopy.text(value_text(event.old_value) if event else None),
            resource.place,
            pgcopy.NULL if corrective is None else pgcopy.boolean(corrective),
        )
    )


def containing_class(path: list[str] | None) -> str | None:
    """The innermost part of a containment path that is a class: it has no title in brackets."""
    return next((clean(part) for part in reversed(path or ()) if "[" not in part), None)


def log_fields(log: Log, message: str | None) -> tuple[bytes, bytes]:
    """What stands before and behind the id of the event whose message it repeats; ``message`` is None then."""
    before = b"".join((pgcopy.text(clean(log.level)), pgcopy.text(message)))
    behind = b"".join(
        (
            pgcopy.text(clean(log.source)),
            text_array(log.tags),
            pgcopy.text(clean(log.file)),
            pgcopy.int8(_line(log.line)),
        )
    )
    return before, behind


def text_array(texts: list[str]) -> bytes:
    """A text[] field."""
    return pgcopy.bytea(pgcopy.array_of(pgcopy.TEXT_OID, [pgcopy.text(clean(text)) for text in texts]))


def require_shown(what: str, count: int, bytes_: int) -> None:
    """Whoever reads a report back must be able to. Raises Rejected."""
    if bytes_ > SHOWN_BYTES_MAX:
        raise Rejected("too_large", f"{count} {what} of one report, more than PostgreSQL can show together")


def digest_of(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()[:DIGEST_BYTES]


def _line(line: int | None) -> int | None:
    if line is not None and not 0 <= line <= LINE_MAX:
        raise Rejected("number_out_of_range", f"the line {line} is not one of a file")
    return line
