"""A decoder that has met thousands of catalogs makes of the next one what a new decoder makes of it: the same work, or the
same refusal. Every catalog is another one's with a few changes, in all forms, so that whatever is remembered is used.

INGEST_FUZZ_EXAMPLES sets how many mutants are tried (``make fuzz``: 50 000).
"""

from __future__ import annotations

import copy
import json
import os
import re
from random import Random
from typing import Any

import pytest

from ingest.core.catalog.decoding import Decoding
from ingest.core.delivery.work import Claim, SectionDigests
from ingest.errors import Rejected
from lab import real_catalogs as corpus
from tests.core.test_decoding import LANES, Writers, decode

EXAMPLES = int(os.environ.get("INGEST_FUZZ_EXAMPLES", "1500"))
FORMS = ("wire", "native", "envelope", "legacy")
NODES = [
    "web-01.example.com", "web-02.example.com", "web-1", "before", "contains", "source", "title", '"', "]", "File", "a",
    'x"},{"source":"File[/a]","target":"File[/b', "\u00e9", "\\u00e9", "type\":\"", "null", "\ud83d\ude00", "",
    "e\u0301", "WEB-1", "web\u20111", "1", "01", "-1", "\0", "\\", "\\\\", "\\\"", "\ud800", "\u2028", "{}", "/f/1", "File[/f/1]",
]  # fmt: skip
TYPES = [
    "file",
    "FILE",
    "File::X",
    "Fil\u0435",
    "Class",
    "",
    "File[",
    "e\u0301",
    "\u00e9",
    "1",
    "\0",
    'F"',
    "title",
]
VALUES: list[Any] = [
    None, True, 0, 2**63, 1.5, -0.0, 1e300, "", "\0", "\ud800", "x" * 5000, [], {}, [[1, {"a": []}]], {"type": "File"},
    {"__ptype": "Sensitive", "__pvalue": "s"}, "File[/f/1]", ["File[/f/1]", "File[/f/2]"], '],"edges":[', '"resources":[',
]  # fmt: skip
BYTES = [
    b"",
    b" ",
    b",",
    b"]",
    b"[",
    b"}",
    b'"',
    b"\\",
    b"\xff",
    b"\\ud800",
    b"\xed\xa0\x80",
    b"[]",
    b'"edges":[],',
    b"\0",
    b"1",
    b"\\u0000",
    b"\\/",
    b"e\xcc\x81",
    b"\xc0\x80",
    b'"title":"/f/1",',
    b'"type":"File","type":"X",',
    b'"parameters":{},',
    b'"name":"b","certname":"b",',
]
MEMBERS = re.compile(
    rb'"(title|type|source|target|relationship|exported|name|certname|version)":("[^"\\]*"|[a-z0-9]+)'
)


class Fleet:
    """Roles as lists of resources and of edges between them; what a node sends next is drawn from it."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.renew()

    def renew(self) -> None:
        """New roles: after many changes most names clash."""
        self.roles = [self._role(count) for count in (3, 25, 70)]

    def _role(self, count: int) -> tuple[list[dict[str, Any]], list[list[Any]]]:
        resources = [
            {
                "type": "File", "title": f"/f/{n}", "exported": n % 7 == 0, "tags": ["file", f"t{n % 5}"], "file": "/m.pp",
                "line": n, "parameters": {"mode": "0644", "n": n},
            }
            for n in range(count)
        ]  # fmt: skip
        for n in range(0, count, 9):
            resources[n]["title"] = f"/own/{n}/{{}}"
        resources[1]["parameters"]["content"] = "{}"
        edges = [[n // 3, n, "contains"] for n in range(1, count)]
        return resources, edges

    def next(self) -> bytes:
        """The body of some node, changed a little, in some form."""
        self._drawn = self.random.randrange(len(self.roles))
        self._changed = resources, edges = copy.deepcopy(self.roles[self._drawn])
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 2, 4))):
            self._change(resources, edges)
        body = self._body(resources, edges)
        if self.random.random() < 0.25:
            body = self._damage(body)
        return body

    def keep(self) -> None:
        """What was drawn last was good: the role moves on, its next nodes have that too."""
        self.roles[self._drawn] = self._changed

    def _change(self, resources: list[dict[str, Any]], edges: list[list[Any]]) -> None:
        random = self.random
        place = random.randrange(len(resources))
        match random.randrange(10):
            case 0:
                parameter = random.choice(("x", "x", "alias", "path", "require"))
                resources[place]["parameters"] = {parameter: copy.deepcopy(random.choice(VALUES))}
            case 1:
                says = random.choice(("before", "require", "notify", "subscribe"))
                resources[place]["parameters"][says] = f"File[{random.choice(resources)['title']}]"
            case 2:
                resources[place]["line"] = random.randrange(3)
            case 3:
                resources[place]["title"] = random.choice(
                    ("/own/{}", "{}", f"/f/{random.randrange(80)}", "{}{}")
                )
            case 4:
                resources[place][random.choice(("exported", "virtual"))] = random.random() < 0.5
            case 5:
                resources.insert(
                    place, {"type": "File", "title": f"/new/{random.randrange(999)}", "parameters": {}}
                )
                for edge in edges:
                    edge[:2] = [end + (end >= place) for end in edge[:2]]
            case 6 if len(resources) > 3:
                del resources[place]
                edges[:] = [
                    [source - (source > place), target - (target > place), kind]
                    for source, target, kind in edges
                    if place not in (source, target)
                ]
            case 9:
                resources[place]["type"] = random.choice(TYPES)
            case 7 if len(edges) > 2 * len(resources):
                del edges[::2]
            case 7 if edges:
                random.choice(edges)[random.randrange(2)] = place
            case _:
                edges.insert(
                    random.randrange(len(edges) + 1), [place, random.randrange(len(resources)), "before"]
                )

    def _body(self, resources: list[dict[str, Any]], edges: list[list[Any]]) -> bytes:
        name, form = self.random.choice(NODES), self.random.choice(FORMS)
        own = [self._named(resource, name) for resource in resources]
        ends = [(own[source], own[target], kind) for source, target, kind in edges]
        if form == "wire":
            found: list[Any] = [
                {"source": _ref(source), "target": _ref(target), "relationship": kind}
                for source, target, kind in ends
            ]
        else:
            found = [{"source": _text(source), "target": _text(target)} for source, target, _ in ends]
        sections: Any = {"resources": own, "edges": found}
        catalog = {"name": name, "version": self.random.randrange(9), "environment": "production"}
        if form == "wire":
            payload = {
                "certname": name,
                "version": "1",
                "producer_timestamp": "2026-01-01T00:00:00Z",
            } | sections
            return self._written(
                {"command": "replace catalog", "version": self.random.choice((4, 6, 9)), "payload": payload}
            )
        if form == "native":
            return self._written(catalog | sections)
        if form == "legacy" and self.random.random() < 0.5:
            sections = {
                name: self._written(section).decode("utf-8", "surrogatepass")
                for name, section in sections.items()
            }
        return self._written(
            {"document_type": "Catalog", "data": catalog | sections, "metadata": {"api_version": 1}}
        )

    def _named(self, resource: dict[str, Any], name: str) -> dict[str, Any]:
        parameters = {
            parameter: value.replace("{}", name) if isinstance(value, str) else value
            for parameter, value in resource.get("parameters", {}).items()
        }
        return resource | {"title": resource["title"].replace("{}", name), "parameters": parameters}

    def _written(self, document: Any) -> bytes:
        # Mostly as Puppet writes it.
        separators = (",", ":") if self.random.random() < 0.9 else (", ", ": ")
        text = json.dumps(document, separators=separators, ensure_ascii=self.random.random() < 0.5)
        return self._respelt(text.encode("utf-8", "surrogatepass"))

    def _respelt(self, text: bytes) -> bytes:
        """At times the same in other escapes, or with a member that is said twice, once otherwise."""
        match self.random.randrange(12):
            case 0:
                return text.replace(
                    b"/f/", self.random.choice((rb"\/f\/", rb"\u002ff\u002F", rb"\u002f\u0066/"))
                )
            case 1:
                return text.replace(b"File", self.random.choice((rb"\u0046ile", rb"Fil\u0065")), 3)
            case 2 if members := list(MEMBERS.finditer(text)):
                found, other = self.random.choice(members), self.random.choice(members)
                twice = b'"%b":%b,' % (found[1], other[2])
                at = found.start() if self.random.random() < 0.5 else found.end()
                return text[:at] + (twice if at == found.start() else b"," + twice[:-1]) + text[at:]
        return text

    def _damage(self, body: bytes) -> bytes:
        random = self.random
        at = random.randrange(len(body) + 1)
        length = random.choice((0, 0, 1, 2, 30))
        if random.random() < 0.3:
            return body[:at] + body[at : at + length] * 2 + body[at + length :]
        return body[:at] + random.choice(BYTES) + body[at + length :]


def _ref(resource: dict[str, Any]) -> dict[str, Any]:
    return {"type": resource["type"], "title": resource["title"]}


def _text(resource: dict[str, Any]) -> str:
    return f"{resource['type']}[{resource['title']}]"


def understood(one: Decoding, writers: Writers, body: bytes) -> tuple[Any, ...]:
    """What a lane has of it in the end, or why it is refused. Not its raw digest: where lone surrogates were read
    otherwise first, that costs a comparison and no more."""
    try:
        work = decode(one, body)
    except Rejected as rejected:
        return rejected.reason, rejected.text
    assert not isinstance(work, Claim)
    header, _, *rest = writers.whole(work)
    return header, *rest


@pytest.mark.parametrize("cache_bytes_max", [30_000, 300_000, 1 << 26])
def test_a_warm_decoder_and_a_cold_one_agree(cache_bytes_max: int) -> None:
    """On every catalog of a fleet that changes all the time, of nodes of any name, whole or damaged."""
    fleet = Fleet(Random(cache_bytes_max))
    warm, writers = Decoding(cache_bytes_max, lanes=LANES), Writers()
    stored = refused = 0
    for number in range(EXAMPLES // 3):
        body = fleet.next()
        found, alone = (
            understood(warm, writers, body),
            understood(Decoding(1 << 22, lanes=LANES), Writers(), body),
        )
        assert found == alone, f"example {number}: {body!r}"
        if len(alone) > 2:
            stored += 1
            fleet.keep()
        else:
            refused += 1
        if number % 200 == 199:
            fleet.renew()
    print(
        f"\n{stored} stored, {refused} refused; resources met before {warm.resources.hits}, new {warm.resources.misses}"
    )
    assert stored > refused / 2 > 0
    assert warm.resources.hits


@pytest.mark.parametrize("form", ["wire", "native"])
def test_they_agree_on_damaged_real_catalogs(form: str) -> None:
    """Of two nodes of a role, in all rounds, each with a byte or a value that is another one's."""
    random = Random(form)
    fleet = Fleet(random)
    warm, writers = Decoding(1 << 22, lanes=LANES), Writers()
    bodies = [
        corpus.body(role, round_, form) for role in ("minimal-01", "minimal-03") for round_ in corpus.ROUNDS
    ]
    for number in range(EXAMPLES // 30):
        body = random.choice(bodies)
        if number >= len(bodies):
            body = fleet._damage(body)
        alone = understood(Decoding(1 << 24, lanes=LANES), Writers(), body)
        assert understood(warm, writers, body) == alone, f"example {number}"


def test_a_claim_is_of_what_was_stored() -> None:
    """With what is stored of each node at hand: a decoder claims only what a new one would store again, as it is."""
    fleet = Fleet(Random(1))
    warm, writers = Decoding(1 << 22, lanes=LANES), Writers()
    known: dict[str, SectionDigests] = {}
    stored: dict[str, tuple[Any, ...]] = {}
    claims = 0
    body = b""
    for number in range(EXAMPLES // 3):
        body = fleet.next() if number % 3 or not body else body
        try:
            work = decode(warm, body, known)
        except Rejected:
            body = b""
            continue
        fleet.keep()
        name = work.header.certname
        if isinstance(work, Claim):
            claims += 1
            assert understood(Decoding(1 << 22, lanes=LANES), Writers(), body)[1:] == stored[name]
        else:
            _, _, *stored[name] = writers.whole(work)
            stored[name] = tuple(stored[name])
        known[name] = work.sections
    print(f"\n{claims} claims")
    assert claims
