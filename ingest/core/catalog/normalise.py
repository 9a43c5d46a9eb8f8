"""Makes of any family's resources and edges what PuppetDB's terminus would have made of them.

Source of the rules: the terminus itself (``puppet/indirector/catalog/puppetdb.rb``): namevar aliases, sorted
metaparameters, relationship edges from metaparameters, redaction. A resource is normalised alone, so that a cache
keyed by its bytes can skip it; what needs the whole catalog happens in ``normalise_edges``.

Two things only Ruby knows: a type's namevar, and whether an exported resource is collected where it was exported.
The Puppet module catalog_queue says both with each resource, as ``aliases`` and ``virtual``. Without them the types
of ``namevars.py`` are known, and an exported resource may refer to what is elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ingest.core.catalog.edges import (
    Related,
    Relation,
    edge_name,
    normalise_edges,
    unpack_edge,
)
from ingest.core.catalog.formats import Skim, slices
from ingest.core.catalog.guessing import Guessing
from ingest.core.catalog.metaparameters import add_aliases, relations, sort_metaparameters
from ingest.core.catalog.model import RELATIONSHIPS, Catalog, Edge, Json, Ref, Resource, scalar_text
from ingest.core.catalog.rich_data import SENSITIVE, stringify, writer_of
from ingest.core.catalog.sensitive_kind import kind_alone
from ingest.core.catalog.tags import is_tag, sorted_tags
from ingest.core.json_text import parse_json
from ingest.core.nesting import SHALLOW_BYTES, require_shallow
from ingest.core.sensitive import conceal, may_hold_secrets, tells_no_secret
from ingest.errors import Rejected

_COLUMNS = frozenset(("type", "title", "exported", "tags", "parameters", "kind", "file", "line"))
_KNOWN = _COLUMNS | {"sensitive_parameters", "virtual"}
_KNOWN_NATIVE = _KNOWN | {"aliases"}


class _Float(Exception):
    """A resource has a number with a point or an exponent, which PostgreSQL may print otherwise."""


def _no_float(_: str) -> float:
    raise _Float


_without_floats = msgspec.json.Decoder(float_hook=_no_float)


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """A resource of PuppetDB's wire form with nothing unusual about it: most are, and are parsed at once."""

    type: str
    title: str
    exported: bool = False
    tags: list[str] = []
    parameters: dict[str, Any] = {}
    kind: str | None = None
    file: str | None = None
    line: int | None = None


_plain = msgspec.json.Decoder(_Plain, float_hook=_no_float)


class Normal(msgspec.Struct, frozen=True):
    """A resource in its stored form, and what it says about others."""

    resource: Resource
    relations: tuple[Relation, ...] = ()
    aliases: tuple[str, ...] = ()
    has_floats: bool = True  # False: no number in it is one
    is_virtual: bool = False  # known to be exported and not collected here: no edge begins or ends there


def normalise(skimmed: Skim) -> Catalog:
    """The whole catalog, the plain way. Raises Rejected."""
    normals = [normalise_resource(raw, skimmed.family) for raw in slices(skimmed.resources)]
    normals.sort(key=lambda normal: normal.resource.ref)
    require_unique(normal.resource.ref for normal in normals)
    refs = [normal.resource.ref for normal in normals]
    names = [edge_name(ref, skimmed.family) for ref in refs]
    related = [
        Related(
            slot, refs[slot], normal.resource.exported, normal.relations, normal.aliases, normal.is_virtual
        )
        for slot, normal in enumerate(normals)
    ]

    guess = Guessing(refs, lambda slot: normals[slot].resource.parameters)
    edges = []
    for edge in normalise_edges(skimmed, refs, names, related, guess):
        relationship, source, target = unpack_edge(edge)
        edges.append(Edge(refs[source], refs[target], RELATIONSHIPS[relationship]))
    return Catalog(skimmed.header, tuple(normal.resource for normal in normals), tuple(sorted(edges)))


def require_unique(refs: Iterable[Ref]) -> None:
    """Raises Rejected when one of the sorted refs stands there twice."""
    before: Ref | None = None
    for ref in refs:
        if ref == before:
            raise Rejected("duplicate_resource", f"{ref.short} is in the catalog twice")
        before = ref


def normalise_resource(raw: bytes | memoryview | msgspec.Raw, family: str) -> Normal:
    """One resource from its JSON; a pure function of its bytes and its family."""
    data = raw if isinstance(raw, bytes) else bytes(raw)
    braces = data.count(b"{")
    if len(data) > SHALLOW_BYTES:
        require_shallow(data, braces)
    if family == "puppetdb" and (normal := _plain_one(data, braces)) is not None:
        return normal
    document, has_floats = _document(raw, data, family)
    ref = _ref(document)
    parameters = _parameters(document, ref)
    if family == "puppetdb":
        return Normal(_resource(document, ref, parameters, _KNOWN), has_floats=has_floats)
    writer = writer_of(len(data))
    parameters = stringify(parameters, writer)
    if not isinstance(parameters, dict):
        raise Rejected("invalid", f"the parameters of {ref.short} are one rich value")
    aliases = add_aliases(ref.type, ref.title, parameters, stringify(document.get("aliases"), writer))
    sort_metaparameters(parameters)
    is_virtual = document.get("virtual") is True
    said = () if is_virtual else tuple(relations(ref, parameters))
    resource = _resource(document, ref, parameters, _KNOWN_NATIVE)
    return Normal(resource, said, aliases, has_floats, is_virtual)


def _plain_one(data: bytes, braces: int) -> Normal | None:
    """None: there is something unusual about it."""
    try:
        plain = _plain.decode(data)
    except (_Float, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not tells_no_secret(data, braces, plain.parameters):
        return None
    return Normal(
        Resource(
            type=plain.type,
            title=plain.title,
            exported=plain.exported,
            tags=_tags(plain.tags, plain.type, plain.title),
            parameters=plain.parameters,
            kind=plain.kind,
            file=plain.file,
            line=plain.line,
        ),
        has_floats=False,
    )


def _document(raw: bytes | memoryview | msgspec.Raw, data: bytes, family: str) -> tuple[dict[str, Any], bool]:
    """The resource without secrets, and whether a number in it may be one with a point."""
    has_floats = False
    try:
        document = _without_floats.decode(raw)
    except (_Float, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        has_floats = True
        document = parse_json(raw)
    if may_hold_secrets(data):
        # Before anything else: what is refused below is quoted in logs. Native rich data keeps its kind, because the
        # values around it are still to be printed.
        document = conceal(document, data, SENSITIVE if family == "puppetdb" else kind_alone)
    if not isinstance(document, dict):
        raise Rejected("invalid", "a resource is not an object")
    return document, has_floats


def _ref(document: dict[str, Any]) -> Ref:
    type_, title = document.get("type"), document.get("title")
    if not isinstance(type_, str) or title is None or isinstance(title, dict | list):
        raise Rejected("invalid", "a resource has no type or no title")
    return Ref(type_, title if isinstance(title, str) else scalar_text(title))


def _parameters(document: dict[str, Any], ref: Ref) -> Any:
    """Without those that somebody marked as sensitive by their names."""
    parameters = document.get("parameters")
    if parameters is None or parameters == []:
        parameters = {}
    if not isinstance(parameters, dict):
        raise Rejected("invalid", f"the parameters of {ref.short} are not an object")
    for name in _sensitive(document.get("sensitive_parameters")):
        parameters.pop(name, None)
    return parameters


def _resource(
    document: dict[str, Any], ref: Ref, parameters: dict[str, Json], known: frozenset[str]
) -> Resource:
    """``known``: members that are no extra ones."""
    extra = None
    if not document.keys() <= known:
        extra = {key: document[key] for key in document.keys() - known}
    return Resource(
        type=ref.type,
        title=ref.title,
        exported=document.get("exported") is True,
        tags=_tags(document.get("tags"), ref.type, ref.title),
        parameters=parameters,
        kind=_optional(document.get("kind"), str, "kind"),
        file=_optional(document.get("file"), str, "file"),
        line=_optional(document.get("line"), int, "line"),
        extra=extra,
    )


def _sensitive(names: Any) -> list[str]:
    if names is None:
        return []
    # Anything else would leave a secret where it is.
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    raise Rejected("invalid", "a resource's sensitive_parameters are not a list of names")


def _tags(given: Any, type_: str, title: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        given = [given]  # collapsed by Puppet up to 3
    if not isinstance(given, list):
        raise Rejected("invalid_tag", f"the tags of {Ref(type_, title).short} are not a list")
    try:
        if (tags := sorted_tags(tuple(given))) is not None:
            return tags
    except TypeError:
        pass  # not even strings: named below
    wrong = next(tag for tag in given if not isinstance(tag, str) or not is_tag(tag))
    raise Rejected("invalid_tag", f"{Ref(type_, title).short} has the tag {str(wrong)[:60]!r}")


def _optional(value: Any, type_: type, name: str) -> Any:
    if value is None or (isinstance(value, type_) and not isinstance(value, bool)):
        return value
    raise Rejected("invalid", f"a resource's {name} is {str(value)[:40]!r}")
