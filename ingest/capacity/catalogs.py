"""Catalogs for a calibration: templates with holes, made up in real proportions or from real catalogs.

Proportions are those of catalogs compiled by Puppet 7.23 with Debian's modules: 100 to 4000 resources of about a
kilobyte, two edges a resource, one resource in a hundred that names its node, a few files of 25 to 250 KB. In a
release (an upgrade of modules) two of five resources only move to another line, and 41 change.
"""

from __future__ import annotations

import io
import json
import math
import random
import re
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any

from ingest.core.catalog.metaparameters import RELATIONSHIP_PARAMETERS
from ingest.errors import Misconfigured

ROLES, SEED = 8, 1  # of a calibration
RESOURCES_MEDIAN, RESOURCES_SIGMA = 1150, 0.75  # of their logarithm; the real ones' mean is 1.4 MB
RESOURCES_MIN, RESOURCES_MAX = 100, 4000
BASE_RESOURCES = 110  # what the smallest real catalogs have, and all others too
NAMES_ITS_NODE = 0.012
FEW_SHARE = 0.01
MOVED_SHARE = 0.43
RELEASE_CHANGED = 41
RELEASE_ADDED = 39
LARGE_CONTENT_BYTES = (25_000, 25_000, 50_000, 130_000)
LARGE_SHARE = 0.004

# Holes: words that JSON does not escape and that no catalog contains.
_HOLES = _CERTNAME, _TIMESTAMP, _UUID, _TWEAK, _RELEASE, _LINES = tuple(
    f"@@{name}@@" for name in ("certname", "timestamp", "uuid", "tweak", "release", "lines")
)
_HOLE = re.compile("(" + "|".join(_HOLES) + ")")
_MOVED_LINE = re.compile(r'"@@line(\d+)@@"')


class Template:
    """One role's catalog; rendering fills its holes."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._parts = [part.encode() for part in _HOLE.split(text)]
        self._holes = {
            hole: [i for i, part in enumerate(self._parts) if part == hole.encode()] for hole in _HOLES
        }
        self.bytes = len(text)

    def render(
        self, certname: str, at: datetime, *, tweak: int = 0, release: int = 0, shift: int = 0
    ) -> bytes:
        """The catalog of one run. Another ``tweak`` changes a few parameters of this node alone, another
        ``release`` what a module upgrade changes, another ``shift`` only the lines that one moves; the latter two
        for all nodes of the role alike."""
        return b"".join(self.parts(certname, at, tweak=tweak, release=release, shift=shift))

    def parts(
        self, certname: str, at: datetime, *, tweak: int = 0, release: int = 0, shift: int = 0
    ) -> list[bytes]:
        """What ``render`` joins."""
        values = {
            _CERTNAME: certname,
            _TIMESTAMP: at.isoformat(),
            _UUID: str(uuid.UUID(int=random.getrandbits(128))),
            _TWEAK: f"{certname} {tweak}",
            _RELEASE: f"{release:03d}",
            _LINES: f"{release + shift:03d}",
        }
        parts = list(self._parts)
        for hole, value in values.items():
            filled = value.encode()
            for place in self._holes[hole]:
                parts[place] = filled
        return parts


class Sheet:
    """Where one body after the other is written: a new object of megabytes for each would cost a sender a third of its
    time, in page faults."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._body = self._file.getbuffer()

    def write(self, parts: Iterable[bytes]) -> memoryview:
        """The body, until the next one is written."""
        self._body.release()
        self._file.seek(0)
        self._file.writelines(parts)
        with self._file.getbuffer() as whole:
            self._body = whole[: self._file.tell()]
        return self._body


def synthetic(roles: int, seed: int, form: str = "wire", resources: int | None = None) -> list[Template]:
    """Templates of made-up roles, smallest first, in one of ``FORMS``; all of one size if ``resources`` says so."""
    sizes = [
        resources or RESOURCES_MEDIAN * math.exp(RESOURCES_SIGMA * NormalDist().inv_cdf((i + 0.5) / roles))
        for i in range(roles)
    ]
    found = []
    for number, size in enumerate(sizes):
        count = int(min(max(size, RESOURCES_MIN), RESOURCES_MAX))
        base = _resources("base", min(BASE_RESOURCES, count), random.Random(f"{seed} base"))
        own = _resources(f"role{number}", count - len(base), random.Random(f"{seed} {number}"))
        payload = {"resources": base + own, "edges": _edges(base + own, random.Random(f"{seed} {number} e"))}
        found.append(template(f"role{number}", _CERTNAME, payload, seed, form))
    return found


def from_directory(directory: Path, seed: int, form: str = "wire") -> list[Template]:
    """Templates from ``*/run-1/catalog-wire.json`` or ``*.json`` (wire form). Raises Misconfigured."""
    files = sorted(directory.glob("*/run-1/catalog-wire.json")) or sorted(directory.glob("*.json"))
    if not files:
        raise Misconfigured(
            "--templates", f"{directory} holds neither *.json nor */run-1/catalog-wire.json, in wire form"
        )
    found = []
    for file in files:
        try:
            document = json.loads(file.read_bytes())
            payload = document.get("payload", document)
            found.append(template(file.parent.parent.name, payload["certname"], payload, seed, form))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Misconfigured("--templates", f"{file} is not a catalog in wire form: {error!r}") from error
    return sorted(found, key=lambda t: t.bytes)


def template(name: str, certname: str, payload: dict[str, Any], seed: int, form: str = "wire") -> Template:
    """Holes where runs differ: the header, parameters that a tweak changes, lines that a release moves, contents
    that it changes, resources that it brings."""
    chance = random.Random(f"{seed} {name} holes")
    resources = [dict(resource) for resource in payload["resources"]]
    places = list(range(len(resources)))
    for place in chance.sample(places, max(1, round(len(places) * FEW_SHARE))):
        resources[place]["parameters"] = resources[place]["parameters"] | {"noop_reason": _TWEAK}
    for place in chance.sample(places, min(RELEASE_CHANGED, len(places) // 4)):
        resources[place]["parameters"] = resources[place]["parameters"] | {"release": _RELEASE}
    for place in chance.sample(places, int(len(places) * MOVED_SHARE)):
        resources[place]["line"] = f"@@line{resources[place].get('line') or 1}@@"
    added = _resources(f"{name} {_RELEASE}", min(RELEASE_ADDED, len(places) // 10), chance)
    edges = payload["edges"] + [
        {"source": _ref(resources[0]), "target": _ref(one), "relationship": "contains"} for one in added
    ]
    document = _FORMS[form](resources + added, edges)
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace(certname, _CERTNAME)
    return Template(name, _MOVED_LINE.sub(rf"\g<1>{_LINES}", text))


def _wire(resources: list[dict[str, Any]], edges: list[dict[str, Any]]) -> dict[str, Any]:
    """As PuppetDB's terminus sends it."""
    payload = {
        "certname": _CERTNAME, "version": "1", "environment": "production", "transaction_uuid": _UUID,
        "catalog_uuid": _UUID, "code_id": None, "job_id": None, "producer": "puppet.example.com",
        "producer_timestamp": _TIMESTAMP, "resources": resources, "edges": edges,
    }  # fmt: skip
    return {"command": "replace catalog", "version": 9, "certname": _CERTNAME, "payload": payload}


def _native(resources: list[dict[str, Any]], edges: list[dict[str, Any]]) -> dict[str, Any]:
    """As Puppet serialises it: containment is in its edges, other relationships are metaparameters."""
    owners: dict[tuple[str, str], dict[str, list[str]]] = {}
    for edge in edges:
        if edge["relationship"] != "contains":
            name, forward = _METAPARAMETERS[edge["relationship"]]
            owner, other = (edge["source"], edge["target"]) if forward else (edge["target"], edge["source"])
            mine = owners.setdefault((owner["type"], owner["title"]), {})
            mine.setdefault(name, []).append(_text(other))
    bare = _METAPARAMETERS_OF_RELATIONS | {"alias"}
    return {
        "tags": ["settings", "node", "class"], "name": _CERTNAME, "version": 1, "code_id": None,
        "catalog_uuid": _UUID, "catalog_format": 2, "environment": "production",
        "resources": [
            one | {"parameters": {k: v for k, v in one["parameters"].items() if k not in bare}
                   | owners.get((one["type"], one["title"]), {})}
            for one in resources
        ],
        "edges": [
            {"source": _text(edge["source"]), "target": _text(edge["target"])}
            for edge in edges if edge["relationship"] == "contains"
        ],
        "classes": ["settings"],
    }  # fmt: skip


def _legacy(resources: list[dict[str, Any]], edges: list[dict[str, Any]]) -> dict[str, Any]:
    """As the old queue's serialiser wrapped it; Puppet 3 knew no kinds."""
    document = _native(resources, edges)
    for resource in document["resources"]:
        resource.pop("kind", None)
    return {"document_type": "Catalog", "data": document, "metadata": {"api_version": 1}}


_FORMS = {"wire": _wire, "native": _native, "legacy": _legacy}
FORMS = tuple(_FORMS)
# A relationship of the wire form: the metaparameter that makes it, and whether the edge's source has that.
_METAPARAMETERS = {relationship: (name, forward) for name, relationship, forward in RELATIONSHIP_PARAMETERS}
_METAPARAMETERS_OF_RELATIONS = {name for name, _ in _METAPARAMETERS.values()}


def _text(ref: dict[str, Any]) -> str:
    return f"{ref['type']}[{ref['title']}]"


def _resources(prefix: str, count: int, chance: random.Random) -> list[dict[str, Any]]:
    return [_resource(prefix, number, chance) for number in range(count)]


def _resource(prefix: str, number: int, chance: random.Random) -> dict[str, Any]:
    type_ = chance.choice(("File", "File", "Package", "Service", "Exec", "Concat::Fragment", "Anchor"))
    module = f"{prefix.split()[0]}_module{number // 40}"
    parameters: dict[str, Any] = {
        "ensure": chance.choice(("present", "installed", "running", "file")),
        "owner": "root",
        "path": f"/etc/{module}/conf.d/{number:04d}-{_words(chance, 2)}.conf",
        "require": f"Package[{module}]",
    }
    for _ in range(chance.randrange(3)):
        parameters[_words(chance, 2)] = _words(chance, chance.randint(1, 10))
    if chance.random() < LARGE_SHARE:
        parameters["content"] = _words(chance, chance.choice(LARGE_CONTENT_BYTES) // 8)
    if chance.random() < NAMES_ITS_NODE:
        parameters["alias_of"] = f"{_CERTNAME}/{number}"
    tags = {type_.lower(), "class", "node", "default", module, prefix.split()[0]}
    return {
        "type": type_,
        "title": f"{prefix} {module}::{number}",
        "exported": chance.random() < 0.01,
        "tags": sorted(tags | {_words(chance, 1) for _ in range(7)}),
        "file": f"/etc/puppetlabs/code/environments/production/modules/{module}/manifests/init.pp",
        "line": chance.randint(1, 400),
        "parameters": parameters,
    }


def _edges(resources: Sequence[dict[str, Any]], chance: random.Random) -> list[dict[str, Any]]:
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for target in range(1, len(resources)):
        for relationship in ("contains", "before", "required-by")[: chance.randint(1, 3)]:
            source = chance.randrange(target)
            found[source, target] = {
                "source": _ref(resources[source]),
                "target": _ref(resources[target]),
                "relationship": relationship,
            }
    return list(found.values())


def _ref(resource: dict[str, Any]) -> dict[str, Any]:
    return {"type": resource["type"], "title": resource["title"]}


_VOCABULARY = [
    "".join(random.Random(f"word {n}").choices("abcdefghiklmnoprstuw", k=4 + n % 7)) for n in range(400)
]


def _words(chance: random.Random, count: int) -> str:
    return "_".join(chance.choices(_VOCABULARY, k=count))
