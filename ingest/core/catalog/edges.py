"""Edges between the slots of a catalog: those of its document, and those that metaparameters make.

Thousands of them arrive with each catalog that changed, so an end is not parsed: its bytes are looked up among the
names that Puppet would write. Whatever is written otherwise goes the long way, with a clear word for what is wrong.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from ingest.core import pgcopy
from ingest.core.catalog.formats import Skim
from ingest.core.catalog.guessing import MISSING, Guess
from ingest.core.catalog.model import RELATIONSHIPS, Ref, scalar_text
from ingest.core.delivery.work import EdgeSet
from ingest.core.json_text import parse_json
from ingest.core.sensitive import conceal, may_hold_secrets
from ingest.errors import Rejected

SLOT_BITS = (
    24  # sixteen million resources in one catalog; whole bytes, so that columns can be cut out of many
)


_CODES = {name: code for code, name in enumerate(RELATIONSHIPS)}
_REFERENCE = re.compile(r"^([^\[\]]+)\[(.+)\]$", re.DOTALL)


class Relation(NamedTuple):
    """An edge in the making: from or to a resource that the catalog may know by an alias."""

    relationship: str
    forward: bool
    other: Ref


class Related(NamedTuple):
    """What a resource says about others, by its slot."""

    slot: int
    ref: Ref
    exported: bool
    relations: tuple[Relation, ...]
    aliases: tuple[str, ...]
    is_virtual: bool = False


def pack_edge(relationship: int, source: int, target: int) -> int:
    """An edge between slots as one number: thousands of them are compared and sorted. Their order is that of
    (relationship, source, target); ``relationship`` is a place in RELATIONSHIPS."""
    return (relationship << SLOT_BITS | source) << SLOT_BITS | target


def unpack_edge(edge: int) -> tuple[int, int, int]:
    mask = (1 << SLOT_BITS) - 1
    return edge >> 2 * SLOT_BITS, edge >> SLOT_BITS & mask, edge & mask


# gc=False: thousands of them live for a moment, and none can be part of a cycle.
class _Edge(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    source: msgspec.Raw
    target: msgspec.Raw
    relationship: str = "contains"


_edges = msgspec.json.Decoder(list[_Edge])
_edge = msgspec.json.Decoder(_Edge)


def edge_name(ref: Ref, family: str) -> bytes:
    """How the ends of that family's edges name a resource: an object in PuppetDB's, ``"Type[title]"`` in others."""
    try:
        if family == "puppetdb":
            return msgspec.json.encode({"type": ref.type, "title": ref.title})
        return msgspec.json.encode(str(ref))
    except UnicodeEncodeError:
        return b""  # lone surrogates: no name is that, so its edges go the long way


def normalise_edges(
    skimmed: Skim, refs: Sequence[Ref], names: Sequence[bytes], related: Sequence[Related], guess: Guess
) -> list[int]:
    """The edges of the document and those that metaparameters make, packed; sorted, each once. Raises Rejected.

    ``refs`` has every resource of the catalog by its slot, ``names`` each one's ``edge_name``; ``related`` those with
    relations or aliases, and virtual ones.
    """
    return with_relations(document_edges(skimmed.edges, refs, names), refs, related, guess)


def with_relations(
    document: Iterable[int], refs: Sequence[Ref], related: Sequence[Related], guess: Guess
) -> list[int]:
    """The edges of a document and those that metaparameters make; sorted, each once. Raises Rejected."""
    found = set(document)
    if any(one.relations for one in related):
        found.update(_relationship_edges(_slots_of(refs), related, guess))
    return sorted(found)


def is_plain_edge(
    raw: bytes | memoryview | msgspec.Raw, relationship: int, source: bytes, target: bytes
) -> bool:
    """Whether that is the JSON of this edge, its ends written as ``edge_name`` writes them."""
    try:
        edge = _edge.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return (
        _CODES.get(edge.relationship) == relationship
        and bytes(edge.source) == source
        and bytes(edge.target) == target
    )


def encode_edges(edges: Sequence[int]) -> EdgeSet:
    """Packed, sorted edges as three arrays, made without a Python object for each end."""
    packed = array("Q", edges)
    sources, targets = edge_ends(packed)
    relationships = _column("h", _little(packed), 2 * SLOT_BITS // 8, 2)
    fields = (pgcopy.int4_array(sources), pgcopy.int4_array(targets), pgcopy.int2_array(relationships))
    return EdgeSet(b"".join(fields))


def edge_ends(packed: array[int]) -> tuple[array[int], array[int]]:
    """The slots of all sources, and of all targets."""
    bytes_ = _little(packed)
    width = SLOT_BITS // 8
    return _column("i", bytes_, width, width), _column("i", bytes_, 0, width)


def _little(packed: array[int]) -> bytes:
    if sys.byteorder == "big":
        packed = array("Q", packed)
        packed.byteswap()
    return packed.tobytes()


def _column(typecode: Literal["h", "i"], packed: bytes, at: int, width: int) -> array[int]:
    """Of each packed edge (8 bytes, little endian) the number in ``width`` bytes at ``at``."""
    numbers = array(typecode)
    column = bytearray(len(packed) // 8 * numbers.itemsize)
    for place in range(width):
        column[place :: numbers.itemsize] = packed[at + place :: 8]
    numbers.frombytes(column)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _slots_of(refs: Sequence[Ref]) -> dict[tuple[str, str], int]:
    return {ref: slot for slot, ref in enumerate(refs)}


def document_edges(raw: bytes | memoryview, refs: Sequence[Ref], names: Sequence[bytes]) -> list[int]:
    """Those of the document alone, in its order; see ``normalise_edges``."""
    # Shifted once here, not for each of some thousand edges.
    codes = {name: code << 2 * SLOT_BITS for name, code in _CODES.items()}
    slots = dict(zip(names, range(len(names)), strict=True))
    try:
        return [
            codes[edge.relationship] | slots[bytes(edge.source)] << SLOT_BITS | slots[bytes(edge.target)]
            for edge in _edges.decode(raw)
        ]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        by_ref = _slots_of(refs)
        return [_slot_edge(edge, by_ref) for edge in _lenient_edges(raw)]


def _slot_edge(edge: Mapping[str, Any], slots: Mapping[tuple[str, str], int]) -> int:
    """One edge, with a clear word where something is wrong with it."""
    relationship = edge.get("relationship", "contains")
    if not isinstance(relationship, str) or relationship not in _CODES:
        raise Rejected("unknown_relationship", f"no relationship is called {str(relationship)[:60]!r}")
    ends = []
    for end in (edge["source"], edge["target"]):
        ref = _reference(end)
        if ref not in slots:
            raise Rejected("dangling_edge", f"an edge names {ref.short}, which is not in the catalog")
        ends.append(slots[ref])
    return pack_edge(_CODES[relationship], *ends)


def _relationship_edges(
    slots: Mapping[tuple[str, str], int], related: Sequence[Related], guess: Guess
) -> Iterable[int]:
    by_alias = {(one.ref.type, alias): one.slot for one in related for alias in one.aliases}
    virtual = {one.slot for one in related if one.is_virtual}
    for one in related:
        for relation in one.relations:
            other = slots.get(relation.other)
            if other is None:
                other = by_alias.get(relation.other)
            if other is None:
                other = guess(relation.other)
            # Exported and not collected here: its relations are for those who collect it. Or nobody can tell whom Puppet has
            # found: the edge is left out, and the catalog stored.
            if other is None or (other == MISSING and one.exported):
                continue
            if other == MISSING:
                raise Rejected(
                    "dangling_edge",
                    f"{one.ref.short} {relation.relationship} {relation.other.short}, "
                    "which is not in the catalog",
                )
            if other in virtual:
                raise Rejected(
                    "dangling_edge",
                    f"{one.ref.short} {relation.relationship} {relation.other.short}, "
                    "which is exported but not collected",
                )
            source, target = (one.slot, other) if relation.forward else (other, one.slot)
            yield pack_edge(_CODES[relation.relationship], source, target)


def parse_reference(text: str) -> Ref:
    """``Type[title]``; the title may hold brackets and newlines."""
    match = _REFERENCE.match(text)
    if match is None:
        raise Rejected("invalid", f"{text[:100]!r} is not a reference to a resource")
    return Ref(match[1], match[2])


def _lenient_edges(raw: bytes | memoryview) -> list[dict[str, Any]]:
    document = parse_json(raw)
    if may_hold_secrets(bytes(raw)):
        document = conceal(document, bytes(raw))  # what is refused is quoted in logs
    if not isinstance(document, list):
        raise Rejected("invalid", "`edges` is not a list")
    for edge in document:
        if not isinstance(edge, dict) or "source" not in edge or "target" not in edge:
            raise Rejected("invalid", "an edge has no source or no target")
    return document


def _reference(given: Any) -> Ref:
    if isinstance(given, str):
        return parse_reference(given)
    if isinstance(given, dict) and isinstance(given.get("type"), str) and given.get("title") is not None:
        return Ref(given["type"], scalar_text(given["title"]))
    raise Rejected("invalid", "an edge's end is not a reference to a resource")
