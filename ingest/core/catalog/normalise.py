"""Makes of any family's resources and edges what PuppetDB's terminus would have made of them.

Source of the rules: the terminus itself (``puppet/indirector/catalog/puppetdb.rb``): namevar aliases, sorted
metaparameters, relationship edges from metaparameters, redaction. A resource is normalised alone, so that a cache
keyed by its bytes can skip it; what needs the whole catalog happens in ``normalise_edges``.

Two things only Ruby knows: a type's namevar, and whether an exported resource is collected where it was exported.
The Puppet module catalog_queue says both with each resource, as ``aliases`` and ``virtual``. Without them the types
of ``namevars.py`` are known, and an exported resource may refer to what is elsewhere.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

import msgspec

from ingest.core.bounded_cache import BoundedCache
from ingest.core.catalog.edges import (
    Related,
    Relation,
    edge_name,
    normalise_edges,
    parse_reference,
    unpack_edge,
)
from ingest.core.catalog.formats import Skim, parse_json, slices
from ingest.core.catalog.model import RELATIONSHIPS, Catalog, Edge, Json, Ref, Resource, scalar_text
from ingest.core.catalog.namevars import COMPOSITE, NAMEVARS, NOT_ISOMORPHIC
from ingest.core.catalog.nesting import SHALLOW_BYTES, require_shallow
from ingest.core.catalog.rich_data import SENSITIVE, stringify, writer_of
from ingest.core.catalog.sensitive_kind import kind_alone
from ingest.core.sensitive import conceal, may_hold_secrets, tells_no_secret
from ingest.errors import Rejected

# (metaparameter, its relationship, whether the resource is the edge's source)
RELATIONSHIP_PARAMETERS = (
    ("before", "before", True),
    ("require", "required-by", False),
    ("notify", "notifies", True),
    ("subscribe", "subscription-of", False),
)
UNORDERED_METAPARAMETERS = ("alias", "audit", "before", "check", "notify", "require", "subscribe", "tag")
_COLUMNS = frozenset(("type", "title", "exported", "tags", "parameters", "kind", "file", "line"))
_KNOWN = _COLUMNS | {"sensitive_parameters", "virtual"}
_KNOWN_NATIVE = _KNOWN | {"aliases"}

_RELATION_TARGET = re.compile(r"^[A-Z][a-z0-9_]*(::[A-Z][a-z0-9_]*)*\[.*\]", re.DOTALL)
_NUMBER = re.compile(r"\A\d+\Z")
# PuppetDB's rule for tags: letters and digits of any script, _ : . -, no upper case.
_TAG = re.compile(r"\A\w[\w:.\-]*\Z")


TAGS_BYTES_MAX, TAG_LISTS_BYTES_MAX = 4 * 1024 * 1024, 16 * 1024 * 1024
# A fleet has some thousand tags. Each resource has its own list, with its title and those of the classes around it.
_good_tags: BoundedCache[str, bool] = BoundedCache(
    TAGS_BYTES_MAX, lambda tag, _: 100 + sys.getsizeof(tag), entry_bytes_max=4096
)
_tag_lists: BoundedCache[tuple[str, ...], tuple[str, ...]] = BoundedCache(
    TAG_LISTS_BYTES_MAX,
    lambda given, _: 200 + 72 * len(given) + sys.getsizeof("".join(given)),
    entry_bytes_max=16384,
)


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
    edges = []
    for edge in normalise_edges(skimmed, refs, names, related):
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
    if len(data) > SHALLOW_BYTES:
        require_shallow(data)
    if family == "puppetdb":
        try:
            plain = _plain.decode(raw)
        except (_Float, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # told below, or not so unusual
        else:
            if tells_no_secret(data, plain.parameters):
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
        raise Rejected("invalid", "a resource is no object")
    type_, title = document.get("type"), document.get("title")
    if not isinstance(type_, str) or title is None or isinstance(title, dict | list):
        raise Rejected("invalid", "a resource has no type or no title")
    if not isinstance(title, str):
        title = scalar_text(title)
    parameters = document.get("parameters")
    if parameters is None or parameters == []:
        parameters = {}
    if not isinstance(parameters, dict):
        raise Rejected("invalid", f"the parameters of {Ref(type_, title).short} are no object")
    for name in _sensitive(document.get("sensitive_parameters")):
        parameters.pop(name, None)
    relations: tuple[Relation, ...] = ()
    aliases: tuple[str, ...] = ()
    known = _KNOWN
    is_virtual = False
    if family != "puppetdb":
        known = _KNOWN_NATIVE
        writer = writer_of(len(memoryview(raw)))
        parameters = stringify(parameters, writer)
        if not isinstance(parameters, dict):
            raise Rejected("invalid", f"the parameters of {Ref(type_, title).short} are one rich value")
        aliases = _add_aliases(type_, title, parameters, stringify(document.get("aliases"), writer))
        _sort_metaparameters(parameters)
        is_virtual = document.get("virtual") is True
        if not is_virtual:
            relations = tuple(_relations(Ref(type_, title), parameters))
    extra = None
    if not document.keys() <= known:
        extra = {key: document[key] for key in document.keys() - known}
    resource = Resource(
        type=type_,
        title=title,
        exported=document.get("exported") is True,
        tags=_tags(document.get("tags"), type_, title),
        parameters=parameters,
        kind=_optional(document.get("kind"), str, "kind"),
        file=_optional(document.get("file"), str, "file"),
        line=_optional(document.get("line"), int, "line"),
        extra=extra,
    )
    return Normal(resource, relations, aliases, has_floats, is_virtual)


def _sensitive(names: Any) -> list[str]:
    if names is None:
        return []
    # Anything else would leave a secret where it is.
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    raise Rejected("invalid", "a resource's sensitive_parameters are no list of names")


def _add_aliases(type_: str, title: str, parameters: dict[str, Json], known: Any) -> tuple[str, ...]:
    """Puts the namevar's value among ``alias`` where it differs from the title; returns all aliases.

    ``known``: all of them, from who knows the types; None: find them.
    """
    given = parameters.get("alias")
    aliases = [a for a in (given if isinstance(given, list) else [given]) if a is not None]
    if known is not None:
        if not isinstance(known, list):
            raise Rejected("invalid", f"the aliases of {Ref(type_, title).short} are no list")
        if known:
            parameters["alias"] = aliases = list(known)
    elif type_ not in COMPOSITE:
        if type_ not in NOT_ISOMORPHIC:
            name = _name(type_, title, parameters)
            if name is not None and name not in aliases:
                aliases.append(name)
        if aliases:
            parameters["alias"] = aliases
    return tuple(alias for alias in aliases if isinstance(alias, str))


def _name(type_: str, title: str, parameters: dict[str, Json]) -> Json:
    """The namevar's value where it is another name than the title."""
    name = parameters.get(NAMEVARS.get(type_, "name"))
    if name is None and type_ == "File" and title.endswith("/"):
        name = title.rstrip("/") or None  # File's title pattern drops trailing slashes
    # Puppet keeps some titles as what no string equals: the main class's and stage's as a symbol, that of
    # `listen { 443: }` as a number. Real catalogs have both; a quoted '443' cannot be told from it here.
    is_no_string = (title == "main" and type_ in ("Class", "Stage")) or _NUMBER.match(title)
    return name if name != title or is_no_string else None


def _sort_metaparameters(parameters: dict[str, Json]) -> None:
    for name in UNORDERED_METAPARAMETERS:
        value = parameters.get(name)
        if isinstance(value, list) and len(value) > 1:
            parameters[name] = sorted(value, key=scalar_text)


def _relations(ref: Ref, parameters: dict[str, Json]) -> Iterable[Relation]:
    for name, relationship, forward in RELATIONSHIP_PARAMETERS:
        for other in _flat(parameters.get(name)):
            if not isinstance(other, str) or not _RELATION_TARGET.match(other):
                raise Rejected("invalid_relationship", f"{ref.short} has a {name} that is no reference")
            target = parse_reference(other)
            if target.type == "File" and target.title.endswith("/"):
                target = Ref("File", target.title.rstrip("/"))
            yield Relation(relationship, forward, target)


def _flat(value: Json) -> Iterable[Json]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif value is not None and value is not False:
        yield value


def _tags(given: Any, type_: str, title: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        given = [given]  # collapsed by Puppet up to 3
    if not isinstance(given, list):
        raise Rejected("invalid_tag", f"the tags of {Ref(type_, title).short} are no list")
    try:
        if (tags := _sorted_tags(tuple(given))) is not None:
            return tags
    except TypeError:
        pass  # not even strings: named below
    wrong = next(tag for tag in given if not isinstance(tag, str) or not _is_tag(tag))
    raise Rejected("invalid_tag", f"{Ref(type_, title).short} has the tag {str(wrong)[:60]!r}")


def _sorted_tags(given: tuple[str, ...]) -> tuple[str, ...] | None:
    """None when one of them is no tag; TypeError when one is no string."""
    tags = _tag_lists.get(given)
    if tags is None:
        distinct = set(given)
        new = distinct.difference(_good_tags.entries)
        if not all(map(_is_tag, new)):
            return None
        for tag in new:
            _good_tags.put(tag, True)
        tags = tuple(sorted(distinct))
        _tag_lists.put(given, tags)
    return tags


def _is_tag(tag: str) -> bool:
    return bool(_TAG.match(tag)) and tag == tag.lower()


def _optional(value: Any, type_: type, name: str) -> Any:
    if value is None or (isinstance(value, type_) and not isinstance(value, bool)):
        return value
    raise Rejected("invalid", f"a resource's {name} is {str(value)[:40]!r}")
