"""Events and logs as content: what repeats from run to run, without its time, as a row that reports share."""

from __future__ import annotations

import hashlib
import json
import re
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from ingest.core import pgcopy
from ingest.core.delivery.work import DIGEST_BYTES
from ingest.core.report.model import Event, Log, ReportedResource
from ingest.errors import Rejected

# PostgreSQL's text refuses U+0000 and lone surrogates; PuppetDB puts U+FFFD for the first.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
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


class Fields(dict[str | None, bytes]):
    """The encoded fields of the texts of one report that stand in many of its events and logs: made once each."""

    def __missing__(self, text: str | None) -> bytes:
        field = self[text] = pgcopy.text(clean(text))
        return field


class Arrays(dict[tuple[str, ...], bytes]):
    """The same of their lists."""

    def __missing__(self, texts: tuple[str, ...]) -> bytes:
        field = self[texts] = _text_array([pgcopy.text(clean(text)) for text in texts])
        return field


def value_text(value: Any) -> str:
    """A property's value as JSON, as jsonb can hold it."""
    if (
        isinstance(value, str) and value.isascii() and "\0" not in value
    ):  # nearly always; and seven times as fast
        return encode_basestring(value)
    if isinstance(value, str):
        value = clean(value)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    if "\\u0000" in text or not text.isascii():
        text = without_nul(_UNSTORABLE.sub("\ufffd", text))
    return text


def without_nul(text: str) -> str:
    """JSON with U+FFFD for each escape of U+0000; a backslash that is itself escaped begins none."""
    return _ESCAPED_NUL.sub("\\1\ufffd", text)


class About(NamedTuple):
    """What all events of a resource say alike, as encoded fields. Made once for a resource: its path may be as long as a
    message, and its events as many."""

    name: bytes  # type and title
    place: bytes  # file, line, path, class
    corrective: bool | None


def about(resource: ReportedResource, known: Fields) -> About:
    path = resource.containment_path
    return About(
        known[resource.resource_type] + pgcopy.text(clean(str(resource.resource_title))),
        b"".join(
            (
                known[resource.file],
                pgcopy.int8(_line(resource.line)),
                pgcopy.NULL if path is None else _text_array([known[part] for part in path]),
                known[containing_class(path)],
            )
        ),
        resource.corrective_change,
    )


def event_fields(resource: About, event: Event | None, known: Fields) -> bytes:
    """The encoded fields of an event's content behind its digest; without an event the resource was skipped."""
    if event is None:
        corrective = resource.corrective
        before = known["skipped"] + resource.name + pgcopy.NULL * 5
    else:
        corrective = event.corrective_change
        before = b"".join(
            (
                known[event.status],
                resource.name,
                known[event.property],
                known[event.name],
                pgcopy.text(clean(event.message)),
                pgcopy.text(value_text(event.new_value)),
                pgcopy.text(value_text(event.old_value)),
            )
        )
    return b"".join(
        (
            before,
            resource.place,
            pgcopy.NULL if corrective is None else pgcopy.boolean(corrective),
        )
    )


def containing_class(path: list[str] | None) -> str | None:
    """The innermost part of a containment path that is a class: it has no title in brackets."""
    for part in reversed(path or ()):
        if "[" not in part:
            return clean(part)
    return None


def log_fields(log: Log, message: str | None, known: Fields, lists: Arrays) -> tuple[bytes, bytes]:
    """What stands before and behind the id of the event whose message it repeats; ``message`` is None then."""
    before = known[log.level] + pgcopy.text(message)
    behind = b"".join(
        (
            pgcopy.text(clean(log.source)),
            lists[tuple(log.tags)],
            known[log.file],
            pgcopy.int8(_line(log.line)),
        )
    )
    return before, behind


def _text_array(texts: list[bytes]) -> bytes:
    """A text[] field, of encoded ones."""
    return pgcopy.bytea(pgcopy.array_of(pgcopy.TEXT_OID, texts))


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
