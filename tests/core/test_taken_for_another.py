"""Nobody is taken for somebody else: whatever a node, a title or a tag is called, a decoder that met others before makes of a
catalog what a new one makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.core.catalog import catalog_sets, edge_delta
from ingest.core.catalog.catalog_sets import edges_key
from ingest.core.catalog.decoding import Decoding
from ingest.core.catalog.edges import edge_name, is_plain_edge
from ingest.core.catalog.model import RELATIONSHIPS, Ref
from ingest.core.delivery.work import EdgeSet
from ingest.core.pgcopy import int4_array
from ingest.errors import Rejected
from lab import real_catalogs as corpus
from tests.core.test_decoding import LANES, Writers, body, compact, full

FAMILIES = ["native", "wire"]


def made_of(one: Decoding, writers: Writers, raw: bytes) -> object:
    """What a lane has of it in the end; the reason if it was refused."""
    try:
        return writers.whole(full(one, raw))
    except Rejected as rejected:
        return rejected.reason, rejected.text


def alone(raw: bytes) -> object:
    return made_of(Decoding(1 << 20, lanes=LANES), Writers(), raw)


def edge(
    source: tuple[str, str], target: tuple[str, str], family: str, kind: str = "contains"
) -> dict[str, Any]:
    if family == "native":
        return {"source": f"{source[0]}[{source[1]}]", "target": f"{target[0]}[{target[1]}]"}
    ends = {"source": source, "target": target}
    return {way: {"type": end[0], "title": end[1]} for way, end in ends.items()} | {"relationship": kind}


def role_mate(name: str, family: str, kind: str = "contains") -> bytes:
    """Main contains two hosts, one of them the node's own; a few more stand around."""
    refs = [("Class", "Main"), ("Host", "localhost"), *[("File", f"/{n}") for n in range(5)]]
    own = ("Host", name)
    resources = [{"type": t, "title": n} for t, n in [*refs, *[own] * (own not in refs)]]
    edges = [edge(refs[0], end, family, kind) for end in (*refs[2:], own)]
    return body(name, resources, family, edges=edges)


# The first one is met before; the second must not get its edges.
STRUCTURE = [
    'localhost]"},{"source":"Class[Main]","target":"Host[localhost',
    '"', '\\"', "\\", "{", "}", "[", "]", ",", ":", '":"', '","', '},{', "source", "target", "type", "title",
    "relationship", "contains", "before", "notifies", "Host", "Class", "Main", "localhost", "local", "host", "Host[", "]\"},",
    "File", "/0", "0", "null", "true", "e", "\u00e9", "\\u00e9", "u00e9", "\ud83d\ude00", "\u2028", "\x01", " ",
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", STRUCTURE)
def test_a_name_made_of_structure_gives_nobody_its_edges(name: str, family: str) -> None:
    """Neither the node that is called so, nor one that comes before or after it."""
    bodies = [role_mate(n, family) for n in (name, "victim.example", "other.example", name)]
    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    for raw in bodies:
        assert made_of(one, writers, raw) == alone(raw)


def ends(edges: EdgeSet, source: int, target: int) -> bool:
    fields = edges.fields
    return fields.startswith(int4_array([source])) and fields[len(int4_array([source])) :].startswith(
        int4_array([target])
    )


def test_each_node_has_the_edge_to_its_own_host() -> None:
    """The very bodies of the report: the second node's edge leads to its own host, not to localhost."""
    name = 'localhost]"},{"source":"Class[Main]","target":"Host[localhost'
    bodies = []
    for certname, edges in ((name, [["localhost"], ["localhost"]]), ("victim.example", [["victim.example"]])):
        resources = [{"type": "Class", "title": "Main"}]
        resources += [{"type": "Host", "title": title} for title in ("localhost", certname)]
        found = [edge(("Class", "Main"), ("Host", title), "native") for (title,) in edges]
        bodies.append(body(certname, resources, "native", edges=found))
    one = Decoding(1 << 20)
    first, second = (full(one, raw) for raw in bodies)
    assert first.edges is not None
    assert second.edges is not None
    assert ends(first.edges, 0, 1)
    assert ends(second.edges, 0, 2)


def test_words_of_the_format_are_not_the_nodes_name() -> None:
    """The relationship of an edge is what it says, whoever is called like one."""
    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    for name, kind in (
        ("before", "before"),
        ("contains", "contains"),
        ("x", "before"),
        ("before", "contains"),
    ):
        raw = role_mate(name, "wire", kind)
        assert made_of(one, writers, raw) == alone(raw)
    bad = role_mate("x", "wire").replace(b'"contains"', b'"x"')
    made_of(one, writers, role_mate("contains", "wire"))
    assert made_of(one, writers, bad) == alone(bad)
    assert isinstance(alone(bad), tuple)


def test_the_edges_text_never_runs_into_what_the_resources_say() -> None:
    """Where one ends and the other begins is part of the key."""
    assert edges_key(b"[]\0abc", b"defg") != edges_key(b"[]", b"abc\0defg")
    assert edges_key(b"[]\0abc", b"defg") != edges_key(b"[]", b"\0abcdefg")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", ["relationship", "source", "target", "more", "no JSON"])
def test_an_edge_is_the_one_that_is_meant_in_every_part(part: str, family: str) -> None:
    """What differs in one part is another edge; so is what has a part more, and what is none."""
    ends = [("A", "a"), ("B", "b")]
    family_of_names = "native" if family == "native" else "puppetdb"
    names = [edge_name(Ref(*one), family_of_names) for one in ends]
    said = edge(ends[0], ends[1], family) | {"relationship": "notifies"}
    notifies = RELATIONSHIPS.index("notifies")
    assert is_plain_edge(compact(said), notifies, *names)
    other = {
        "relationship": said | {"relationship": "before"},
        "source": edge(ends[1], ends[1], family) | {"relationship": "notifies"},
        "target": edge(ends[0], ends[0], family) | {"relationship": "notifies"},
        "more": said | {"x": 1},
        "no JSON": said,
    }[part]
    raw = compact(other)[1:] if part == "no JSON" else compact(other)
    assert not is_plain_edge(raw, notifies, *names)


@pytest.mark.parametrize("family", FAMILIES)
def test_edges_that_cannot_be_compared_are_read(family: str) -> None:
    """A document with spaces between its edges is known by its whole text alone: of the next one nothing is believed."""
    titles = [f"/{n:02}" for n in range(40)]
    refs = [("File", title) for title in titles]
    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    for line, target in enumerate(["/01", "/02", "/03"]):
        edges = [edge(refs[0], ("File", target), family), edge(refs[0], refs[9], family)]
        resources = [{"type": "File", "title": title, "line": 1} for title in titles]
        resources[20]["line"] = line
        raw = body("a", resources, family, edges=edges)
        spaced = raw.replace(b'},{"source"', b'}, {"source"')
        assert spaced != raw
        assert made_of(one, writers, spaced) == alone(spaced)


@pytest.mark.parametrize("follows", ["both", "as source", "as target"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_renamed_resource_takes_all_of_its_edges_along(family: str, follows: str) -> None:
    """Of a role mate's two only one that follows the name is not enough: the other dangles, and the catalog is refused."""
    titles = [f"/{n:02}" for n in range(40)]
    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    for certname, source, target in (("a", "a", "a"), ("b", "b", "b"), ("c", *_follow(follows))):
        own = [*titles[:20], f"/19{certname}", *titles[20:]]
        resources = [{"type": "File", "title": title} for title in own]
        edges = [
            edge(("File", f"/19{source}"), ("File", "/05"), family),
            edge(("File", "/05"), ("File", f"/19{target}"), family),
        ]
        raw = body(certname, resources, family, edges=edges)
        assert made_of(one, writers, raw) == alone(raw)
    assert isinstance(alone(raw), tuple)
    assert (len(alone(raw)) == 2) is (follows != "both")  # type: ignore[arg-type]


def _follow(follows: str) -> tuple[str, str]:
    """By which name the edges call the resource of ``c``."""
    return ("c" if follows != "as target" else "a", "c" if follows != "as source" else "a")


NAMES = st.one_of(
    st.sampled_from(STRUCTURE),
    st.sampled_from(RELATIONSHIPS),
    st.sampled_from(["a", "aa", "ab", "aba", "a.b", "b"]),
    st.lists(st.sampled_from(STRUCTURE), min_size=2, max_size=4).map("".join),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6),
)
TITLES = ["{}", "/{}", "{}{}", "/etc/{}.conf", "m", "zz", "/{}/x", "{} {}"]
SAYING = ["before", "require", "notify", "subscribe"]


@st.composite
def role_mates(draw: st.DrawFn) -> list[bytes]:
    """Catalogs of one role: the same but for what is named after the node, and here and there a change."""
    family = draw(st.sampled_from(FAMILIES))
    titles = [
        *draw(st.lists(st.sampled_from(TITLES), unique=True, min_size=1, max_size=4)),
        *[f"/f/{n}" for n in range(draw(st.sampled_from([3, 40])))],
    ]
    places = st.integers(0, len(titles) - 1)
    pairs = draw(st.lists(st.tuples(places, places), max_size=8))
    pairs += [(0, n) for n in range(len(titles) // 2)]
    says = draw(st.lists(st.tuples(places, st.sampled_from(SAYING), places), max_size=3))
    aliases = draw(st.lists(st.tuples(places, st.sampled_from(["{}", "alias"])), max_size=2))
    bodies = []
    for name in draw(st.lists(NAMES, min_size=2, max_size=4)):
        own = [title.replace("{}", name) for title in titles]
        resources: list[dict[str, Any]] = [{"type": "T", "title": t, "parameters": {}} for t in own]
        for place, parameter, other in says:
            resources[place]["parameters"][parameter] = f"T[{own[other]}]"
        for place, alias in aliases:
            resources[place]["parameters"]["alias"] = alias.replace("{}", name)
        kind = name if name in RELATIONSHIPS and draw(st.booleans()) else "contains"
        edges = [edge(("T", own[a]), ("T", own[b]), family, kind) for a, b in pairs]
        match draw(st.sampled_from(["as it is", "swap", "drop", "twice", "spelt", "alias said", "exported"])):
            case "swap":
                edges[0], edges[-1] = edges[-1], edges[0]
            case "drop":
                del edges[draw(st.integers(0, len(edges) - 1))]
            case "twice":
                edges.append(edges[0])
            case "spelt":
                edges = json.loads(json.dumps(edges).replace("/f/1", json.dumps(name)[1:-1]))
            case "alias said":
                resources[-1]["parameters"]["require"] = "T[alias]"
            case "exported":
                resources[0]["exported"] = True
        one = {resource["title"]: resource for resource in resources}
        raw = body(name, list(one.values()), family, edges=edges)
        if draw(st.booleans()):
            raw = compact_utf8(raw)
        bodies.append(raw)
    return bodies


def compact_utf8(raw: bytes) -> bytes:
    """The same with every letter as itself, not escaped."""
    return json.dumps(json.loads(raw), separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


@settings(max_examples=400, deadline=None)
@given(role_mates(), st.sampled_from([20_000, 1 << 24]))
def test_role_mates_of_any_name_are_what_each_is_alone(bodies: list[bytes], cache_bytes_max: int) -> None:
    """Names that are JSON, words of the format, parts of each other; edges from the document and from metaparameters."""
    one, writers = Decoding(cache_bytes_max, lanes=LANES), Writers()
    for raw in (*bodies, *bodies[:1]):
        assert made_of(one, writers, raw) == alone(raw)


@pytest.mark.parametrize("form", ["wire", "native"])
def test_the_nodes_of_a_real_role_share_their_edges(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared is enough: of another node of the role no edge set is made."""
    one, writers = Decoding(1 << 26, lanes=LANES), Writers()
    raw = corpus.body("minimal-01", 1, form)
    certname = full(Decoding(1 << 26), raw).header.certname
    mate = raw.replace(certname.encode(), b"min-07.example.com")
    expected = Writers().whole(full(Decoding(1 << 26, lanes=LANES), mate))
    writers.whole(full(one, raw))
    monkeypatch.setattr(catalog_sets, "make_edge_set", None)
    assert writers.whole(full(one, mate)) == expected


# What the first node and the second say otherwise, so that their edges differ; {} is the node's name. What is in neither
# "exported" nor "virtual" is a parameter.
OTHERWISE: dict[str, list[dict[str, Any]]] = {
    "an unchanged resource requires what is called otherwise": [{"/b": {"require": "T[/own/first]"}}] * 2,
    "an unchanged resource requires what is here only now": [{"/b": {"exported": True, "require": "T[/own/second]"}}] * 2,
    "its own requires another": [{"/own/{}": {"require": "T[/b]"}}, {"/own/{}": {"require": "T[/c]"}}],
    "its own requires another of its own": [{"/own/{}": {"require": "T[/p/{}]"}}, {"/own/{}": {"require": "T[/q/{}]"}}],
    "its own says it the other way": [{"/own/{}": {"require": "T[/b]"}}, {"/own/{}": {"before": "T[/b]"}}],
    "its own says more": [{}, {"/own/{}": {"before": "T[/b]"}}],
    "its own says less": [{"/own/{}": {"before": "T[/b]"}}, {}],
    "an alias that is required is gone": [
        {"/own/{}": {"alias": "known"}, "/b": {"require": "T[known]"}},
        {"/own/{}": {"alias": "other"}, "/b": {"require": "T[known]"}},
    ],
    "an alias that is required is another's": [
        {"/own/{}": {"alias": "known"}, "/b": {"require": "T[known]"}},
        {"/c": {"alias": "known"}, "/b": {"require": "T[known]"}},
    ],
    "an alias that its own requires is another's of its own": [
        {"/own/{}": {"require": "T[known]"}, "/p/{}": {"alias": "known"}},
        {"/own/{}": {"require": "T[known]"}, "/q/{}": {"alias": "known"}},
    ],
    "what its own requires is virtual": [
        {"/own/{}": {"exported": True}, "/p/{}": {"require": "T[/own/{}]"}},
        {"/own/{}": {"exported": True, "virtual": True}, "/p/{}": {"require": "T[/own/{}]"}},
    ],
    "what an unchanged one requires is virtual": [
        {"/c": {"exported": True}, "/b": {"require": "T[/c]"}},
        {"/c": {"exported": True, "virtual": True}, "/b": {"require": "T[/c]"}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERWISE)
def test_what_a_role_mate_says_otherwise_is_heard(what: str) -> None:
    """Each comparison that could be left out is needed."""
    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    for name, says in zip(("first", "second"), OTHERWISE[what], strict=True):
        resources = []
        for title in ("/a", "/b", "/c", "/own/{}", "/p/{}", "/q/{}", *[f"/z/{n}" for n in range(60)]):
            members = dict(says.get(title, {}))
            flags = {flag: members.pop(flag, False) for flag in ("exported", "virtual")}
            parameters = {parameter: value.replace("{}", name) for parameter, value in members.items()}
            own = {"type": "T", "title": title.replace("{}", name), "parameters": parameters}
            resources.append(own | flags)
        raw = body(name, resources, "native", edges=[edge(("T", "/a"), ("T", f"/own/{name}"), "native")])
        assert made_of(one, writers, raw) == alone(raw)


def test_an_edge_that_stays_where_its_end_went_is_noticed() -> None:
    """The text of an edge is that of the one before, but what it names is not here any more."""

    def mate(name: str, target: str) -> bytes:
        titles = ["/a", *[f"/z/{n}" for n in range(40)], f"/own/{name}"]
        edges = [edge(("T", "/a"), ("T", title), "wire") for title in (*titles[1:-1], target)]
        return body(name, [{"type": "T", "title": title} for title in titles], "wire", edges=edges)

    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    for raw in (mate("first", "/own/first"), mate("second", "/own/first"), mate("second", "/own/second")):
        assert made_of(one, writers, raw) == alone(raw)


def test_a_catalog_with_the_same_edges_shares_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where metaparameters name the node's own resources, and an alias is its own: they are compared, not made."""

    def mate(name: str) -> bytes:
        own = f"/own/{name}"
        parameters = {
            own: {"require": "T[/b]", "alias": f"{name} alias"},
            f"/p/{name}": {"notify": f"T[{own}]"},
        }
        titles = ["/a", "/b", own, f"/p/{name}", *[f"/z/{n}" for n in range(40)]]
        resources = [{"type": "T", "title": t, "parameters": parameters.get(t, {})} for t in titles]
        resources[0]["parameters"] = {"before": "T[/b]"}
        return body(name, resources, "native", edges=[edge(("T", "/a"), ("T", own), "native")] * 2)

    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    expected = alone(mate("second"))
    made_of(one, writers, mate("first"))
    monkeypatch.setattr(catalog_sets, "make_edge_set", None)
    assert made_of(one, writers, mate("second")) == expected


def test_a_section_that_was_changed_to_be_read_is_not_compared_with() -> None:
    """Lone surrogates take fewer bytes once they are read: nothing may be taken to stand where it does not."""
    resources = [{"type": "T", "title": f"/{n}", "parameters": {"x": "\ud800" * n}} for n in range(20)]
    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    for number in range(3):
        raw = body("a", [*resources, {"type": "T", "title": "/own", "line": number}], "wire")
        assert made_of(one, writers, raw) == alone(raw)


def test_the_comparison_is_what_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above fail where it says yes to everything."""
    monkeypatch.setattr(edge_delta.KnownEdges, "are_those_of", lambda *_: True)
    one, writers = Decoding(1 << 20, lanes=LANES), Writers()
    first, second = (role_mate(name, "wire", kind) for name, kind in (("a", "before"), ("b", "contains")))
    made_of(one, writers, first)
    assert made_of(one, writers, second) != alone(second)
