"""What two systems say of one node, side by side: rows of PuppetDB's queries, theirs and ours, and words for what differs.

What is each system's own is left out: hashes of catalogs and factsets, times of arrival, and ``corrective_change``, of which
PuppetDB says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ingest.core.plain_text import UNSTORABLE

SHOWN_MAX = 10  # names in one line; the others are counted
_OWN = {"hash", "resource", "timestamp", "receive_time", "report_receive_time", "corrective_change", "href"}
_OFFSET_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:?\d\d)")

Row = Mapping[str, Any]
_encode = msgspec.json.Encoder(order="deterministic").encode


def compare_catalogs(theirs: Row | None, ours: Row | None) -> Iterator[str]:
    if theirs is None or ours is None:
        yield from _one_alone(theirs, ours)
        return
    yield from _members(theirs, ours, {"resources", "edges"})
    there, here = (_by(_data(row, "resources"), ("type", "title")) for row in (theirs, ours))
    yield from _sets("resources", there, here, _reference)
    there, here = (
        _by(
            _data(row, "edges"),
            ("source_type", "source_title", "target_type", "target_title", "relationship"),
        )
        for row in (theirs, ours)
    )
    yield from _sets("edges", there, here, _edge)


def compare_factsets(theirs: Row | None, ours: Row | None) -> Iterator[str]:
    if theirs is None or ours is None:
        yield from _one_alone(theirs, ours)
        return
    yield from _members(theirs, ours, {"facts"})
    there, here = (_by(_data(row, "facts"), ("name",)) for row in (theirs, ours))
    yield from _sets("facts", there, here, lambda key: str(key[0]))


def compare_packages(theirs: Sequence[Row], ours: Sequence[Row]) -> Iterator[str]:
    names = ("package_name", "version", "provider")
    yield from _sets("packages", _by(theirs, names), _by(ours, names), lambda key: f"{key[0]} {key[1]}")


def compare_inputs(theirs: Row | None, ours: Row | None) -> Iterator[str]:
    if theirs is None or ours is None:
        yield from _one_alone(theirs, ours)
        return
    yield from _members(theirs, ours, {"inputs"})
    names = ("sha256", "path")
    there, here = (
        [dict(zip(names, pair, strict=True)) for pair in row.get("inputs") or ()] for row in (theirs, ours)
    )
    yield from _sets("inputs", _by(there, names), _by(here, names), lambda key: " ".join(map(str, key)))


def compare_report_hashes(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    """By hash, when each was made: the hash says whose run it was and when."""
    for where, alone in (("there", theirs.keys() - ours.keys()), ("here", ours.keys() - theirs.keys())):
        if alone:
            times = sorted(str(comparable((theirs if where == "there" else ours)[hash_])) for hash_ in alone)
            yield f"{len(alone)} only {where}, from {times[0]} to {times[-1]}"


def compare_reports(theirs: Row, ours: Row) -> Iterator[str]:
    """The same run's, whole."""
    yield from _members(theirs, ours, {"resource_events", "metrics", "logs", "resources"})
    for part in ("resource_events", "metrics", "logs"):
        there, here = (sorted(map(_text, comparable(_data(row, part)))) for row in (theirs, ours))
        if there != here:
            differing = len(set(there) ^ set(here)) or abs(len(there) - len(here))
            yield f"{part.replace('_', ' ')} of {theirs.get('hash')}: {differing} differ"


def comparable(value: Any) -> Any:
    """Without what is each system's own; times with milliseconds, 7.0 as 7, and what PostgreSQL's text cannot hold as a mark."""
    match value:
        case dict():
            return {name: comparable(one) for name, one in value.items() if name not in _OWN}
        case list():
            return [comparable(one) for one in value]
        case str():
            return _plain_text(value)
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
    return value


def _plain_text(text: str) -> str:
    if _OFFSET_TIME.fullmatch(text):
        try:
            at = datetime.fromisoformat(text)
            return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        except ValueError:
            return text
    return UNSTORABLE.sub("\ufffd", text)


def _one_alone(theirs: Row | None, ours: Row | None) -> Iterator[str]:
    if theirs is not None:
        yield "only there"
    elif ours is not None:
        yield "only here"


def _members(theirs: Row, ours: Row, but: set[str]) -> Iterator[str]:
    for name in sorted((theirs.keys() & ours.keys()) - but - _OWN):
        there, here = comparable(theirs[name]), comparable(ours[name])
        if there != here:
            yield f"{name} is {_text(there)[:200]} there and {_text(here)[:200]} here"


def _data(row: Row, name: str) -> list[Any]:
    part = row.get(name)
    return (part.get("data") if isinstance(part, dict) else part) or []


def _by(rows: Sequence[Any], names: tuple[str, ...]) -> dict[tuple[Any, ...], Any]:
    return {tuple([_key(row.get(name)) for name in names]): row for row in rows}


def _key(value: Any) -> Any:
    return UNSTORABLE.sub("\ufffd", value) if isinstance(value, str) and not value.isprintable() else value


def _is_same(there: Row, here: Row) -> bool:
    """As it stands, which is so of nearly all and quickly told; no: they are to be looked at more closely."""
    try:
        return _canonical(there) == _canonical(here)
    except UnicodeEncodeError:
        return False


def _canonical(row: Row) -> bytes:
    shown = {name: value for name, value in row.items() if name not in _OWN}
    if "tags" in shown:
        shown["tags"] = sorted(shown["tags"])
    return _encode(shown)


def _sets(
    what: str, theirs: Mapping[tuple[Any, ...], Any], ours: Mapping[tuple[Any, ...], Any], show: Any
) -> Iterator[str]:
    for where, alone in (("there", theirs.keys() - ours.keys()), ("here", ours.keys() - theirs.keys())):
        if alone:
            yield f"{what}: {len(alone)} only {where}: {_list(map(show, alone))}"
    differing = {}
    for key in theirs.keys() & ours.keys():
        if _is_same(theirs[key], ours[key]):
            continue
        there, here = _sorted_tags(comparable(theirs[key])), _sorted_tags(comparable(ours[key]))
        if there != here:
            differing[key] = (there, here)
    if differing:
        shown = (f"{show(key)}{_differing_parts(*rows)}" for key, rows in differing.items())
        yield f"{what}: {len(differing)} differ: {_list(shown)}"


def _sorted_tags(row: Any) -> Any:
    return row | {"tags": sorted(row["tags"])} if isinstance(row, dict) and "tags" in row else row


def _differing_parts(there: Row, here: Row) -> str:
    """Which, and never their values: they may be secret."""
    names = []
    for name in sorted(there.keys() | here.keys()):
        one, other = there.get(name), here.get(name)
        if one == other:
            continue
        if name == "parameters" and isinstance(one, dict) and isinstance(other, dict):
            names += sorted(
                part for part in one.keys() | other.keys() if one.get(part, ...) != other.get(part, ...)
            )
        elif name != "value":
            names.append(name)
    return f" ({', '.join(names[:SHOWN_MAX])})" if names else ""


def _reference(key: tuple[Any, ...]) -> str:
    return f"{key[0]}[{key[1]}]"


def _edge(key: tuple[Any, ...]) -> str:
    return f"{key[0]}[{key[1]}] {key[4]} {key[2]}[{key[3]}]"


def _list(names: Any) -> str:
    found = sorted(str(name)[:200] for name in names)
    more = len(found) - SHOWN_MAX
    return ", ".join(found[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
