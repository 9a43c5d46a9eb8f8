"""Queries over stored catalogs: what each entity shows, what each operator finds, and whose resources count."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from ingest.core.query.ast import BadQuery, Query, equals
from ingest.core.query.pql import parse_pql
from ingest.core.query.reading import read_query
from ingest.store.catalog.housekeeping import keep_catalogs, write_exported_texts
from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import HousekeepingSettings
from ingest.store.migrate import grant, require_current
from ingest.store.query.asked import compile_asked
from ingest.store.query.compiling import compile_query
from ingest.store.query.entities import ENTITIES
from ingest.store.query.running import (
    PIECE_BYTES,
    ROWS,
    RunningQuery,
    TooSlow,
    count_population,
    open_reader,
)
from ingest.store.query.wire import PLANS_MAX, finish
from lab.servers import Postgres
from lab.store_model import Pipeline, resource, wire_body

FILE_A = resource(
    "/a", parameters={"mode": "0644", "n": 5, "deep": {"x": [1, {"y": "z"}]}}, tags=["file", "web"], line=1
)
FILE_B = resource(
    "/b", parameters={"mode": "0600", "n": "5", "flag": True}, tags=["database", "file"], line=20
)
BARE = resource("main", type_="Stage", tags=["stage"])
KEY = {"type_": "Sshkey", "exported": True, "tags": ["sshkey"]}


def fleet(connection: Connection) -> None:
    """Three nodes, the last one deactivated."""
    pipeline = Pipeline(connection)
    for number, resources in enumerate([[FILE_A, FILE_B, BARE], [FILE_A, BARE], [FILE_B]]):
        name = f"n{number}"
        resources = [*resources, resource(name, parameters={"key": name}, **KEY)]  # type: ignore[arg-type]
        edges = [(0, 1, "before")] if len(resources) > 2 else []
        pipeline.take(wire_body(name, number + 1, resources, edges))
    connection.execute("UPDATE nodes SET deactivated = now() WHERE certname = 'n2'")


def rows(connection: Connection, asked: str | list[Any], **more: Any) -> list[Any]:
    """The rows of a query in PQL or AST, read in pieces."""
    tree = parse_pql(asked) if isinstance(asked, str) else asked
    running = RunningQuery(connection, 30)
    piece = finish(connection, running.begin(compile_query(read_query(tree)), **more))
    found = []
    while piece:
        found += map(json.loads, piece)
        piece = finish(connection, running.next_piece())
    assert finish(connection, running.close())
    return found


def known(connection: Connection, kind: str, name: str) -> bool:
    return finish(connection, RunningQuery(connection, 30).find(kind, name))


def values(connection: Connection, asked: str | list[Any]) -> set[Any]:
    """What rows of one column hold."""
    found = [tuple(row.values()) for row in rows(connection, asked)]
    return {one[0] if len(one) == 1 else one for one in found}


@pytest.fixture
def reader(connection: Connection, database: str) -> Any:
    fleet(connection)
    opened = open_reader(database, connect_timeout_s=5, timeout_s=30)
    yield opened
    opened.close()


FOUND: list[tuple[str, set[Any]]] = [
    ("nodes[certname]{}", {"n0", "n1", "n2"}),
    ('nodes[certname]{node_state="active"}', {"n0", "n1"}),
    ('nodes[certname]{node_state="Inactive"}', {"n2"}),
    ('nodes[certname]{node_state="any" and certname ~ "[12]"}', {"n1", "n2"}),
    ('nodes[certname]{!node_state="active"}', {"n2"}),
    ("nodes[certname]{deactivated is not null}", {"n2"}),
    ("nodes[certname]{expired is null and deactivated is null}", {"n0", "n1"}),
    ('nodes[certname]{certname in ["n1", "x"]}', {"n1"}),
    ('nodes[certname]{certname != "n1" and certname !~ "2$"}', {"n0"}),
    ('nodes[certname]{catalog_timestamp > "2020-01-01" and catalog_timestamp < "2100-01-01T00:00:00Z"}', {"n0", "n1", "n2"}),
    ('nodes[certname]{resources{title="/b"}}', {"n0", "n2"}),
    ('nodes[certname]{certname in resources[certname]{title="/b" and certname="n2"}}', {"n2"}),
    ('nodes[certname]{catalogs{producer is null} or edges{relationship="before"}}', {"n0", "n1"}),
    ("nodes[certname]{order by certname desc limit 1 offset 1}", {"n1"}),
    ('resources[title]{type="File" and certname="n0"}', {"/a", "/b"}),
    ('resources[certname,title]{type="File" and line > 1}', {("n0", "/b"), ("n2", "/b")}),
    ('resources[certname,line]{title="/a"}', {("n0", 1), ("n1", 1)}),
    ('resources[certname]{title="/a" and file="/m.pp"}', {"n0", "n1"}),
    ('resources[title]{parameters.mode="0644"}', {"/a"}),
    ("resources[title]{parameters.n=5}", {"/a"}),
    ('resources[title]{parameters.n="5"}', {"/b"}),
    ("resources[title]{parameters.n > 4 and parameters.n <= 5}", {"/a"}),
    ("resources[title]{parameters.flag=true}", {"/b"}),
    ('resources[title]{parameters.deep.x[1].y="z"}', {"/a"}),
    ('resources[title]{parameters.deep.x.1.y="z"}', {"/a"}),
    ('resources[title]{parameters.mode ~ "^06"}', {"/a", "/b"}),
    ('resources[title]{parameters.deep.x[1].y ~ "."}', {"/a"}),
    ('resources[title]{parameters.match("^m.*$") ~ "44$"}', {"/a"}),
    ('resources[title]{parameters.deep.match(".").match("[0-9]").y = "z"}', {"/a"}),
    ('resources[title]{!parameters.mode="0644" and type != "Sshkey"}', {"/b", "main"}),
    # Where nothing stands at a path, "more than" is neither true nor false.
    ("resources[title]{!parameters.n > 4}", {"/b"}),
    ("resources[title]{parameters.mode is not null}", {"/a", "/b"}),
    ("resources[parameters.n]{type='File' and certname='n0'}", {5, "5"}),
    ('resources[title]{tag="database" and certname="n9"}', set()),
    ('resources[title]{tag="WEB"}', {"/a"}),
    ('resources[title]{tags="database"}', {"/b"}),
    ('resources[title]{tags ~ "^data|^Data"}', {"/b"}),
    ("resources[certname,title]{exported=true}", {("n0", "n0"), ("n1", "n1"), ("n2", "n2")}),
    ('resources[title]{exported=true and type="Sshkey" and !certname="n1"}', {"n0", "n2"}),
    ('resources[type,count()]{exported=false group by type}', {("File", 4), ("Stage", 2)}),
    ("resources[count()]{}", {9}),
    ("resources[max(line),min(line),sum(line),avg(line)]{type='File'}", {(20, 1, 42, 10.5)}),
    ("resources[min(title)]{}", {"/a"}),
    ("edges[certname,source_title,target_title,relationship]{}", {("n0", "/a", "/b", "before"), ("n1", "/a", "main", "before")}),
    ('environments[name]{catalogs{certname="n0"}}', {"production"}),
    ('environments[name]{resources{title="nowhere"}}', set()),
    ('catalogs[certname]{environment="production" and producer_timestamp is not null}', {"n0", "n1", "n2"}),
    ('catalogs[certname]{environments{name="production"} and certname ~ "0"}', {"n0"}),
    ("nodes[to_string(catalog_timestamp,'\"x\"'),count()]{group by to_string(catalog_timestamp,'\"x\"')}", {("x", 3)}),
]  # fmt: skip


def test_each_operator_finds_what_it_should(reader: Connection) -> None:
    """PQL over every entity that comes from catalogs."""
    for asked, expected in FOUND:
        assert values(reader, asked) == expected, asked


AST: list[tuple[list[Any], set[Any]]] = [
    (["from", "nodes", ["extract", "certname", ["=", ["node", "active"], True]]], {"n0", "n1"}),
    (["from", "nodes", ["extract", "certname", ["or", ["=", ["node", "active"], False], ["=", ["node", "active"], True]]]],
     {"n0", "n1", "n2"}),
    (["from", "resources", ["extract", "title", ["=", ["parameter", "n"], 5]]], {"/a"}),
    (["from", "resources", ["extract", "title", ["=", ["parameter", "deep"], {"x": [1, {"y": "z"}]}]]], {"/a"}),
    (["from", "resources", ["extract", "title", ["~", ["parameter", "mode"], "06.*"]]], {"/a", "/b"}),
    (["from", "resources", ["extract", "title", ["~", ["parameter", "mode"], "06"]]], set()),
    (["from", "resources", ["extract", "title", ["not", ["=", ["parameter", "mode"], "0644"]]]],
     {"/b", "main", "n0", "n1", "n2"}),
    (["from", "nodes", ["extract", "certname", ["in", ["certname"], ["extract", ["certname"],
      ["select_resources", ["=", "title", "/b"]]]]]], {"n0", "n2"}),
    (["from", "nodes", ["extract", [["function", "count"]], ["in", ["certname", "catalog_environment"],
      ["from", "resources", ["extract", ["certname", "environment"], ["=", "title", "/b"]]]]]], {2}),
    (["from", "producers", ["extract", "name"]], {"puppet.example.com"}),
    (["from", "nodes", ["extract", "certname", ["AND", ["=", "certname", "n0"]]]], {"n0"}),
    (["from", "catalogs", ["extract", "certname", ["in", "producer_timestamp", ["array", ["2020-01-01"]]]]], set()),
]  # fmt: skip


def test_what_only_ast_can_say(reader: Connection) -> None:
    """Pairs, both forms of subqueries, several columns in one ``in``."""
    for asked, expected in AST:
        assert values(reader, asked) == expected, asked


def test_a_row_has_the_fields_that_clients_need(reader: Connection) -> None:
    """pypuppetdb and puppetboard fail where one is missing; times have milliseconds and a Z."""
    (node,) = rows(reader, 'nodes{certname="n0"}')
    assert set(node) == set(ENTITIES["nodes"].fields)
    assert node["catalog_timestamp"][-5] == "."
    assert node["catalog_timestamp"].endswith("Z")
    (catalog,) = rows(reader, 'catalogs{certname="n0"}')
    assert catalog["resources"]["href"] == "/pdb/query/v4/catalogs/n0/resources"
    assert {one["title"] for one in catalog["resources"]["data"]} == {"/a", "/b", "main", "n0"}
    (file,) = (one for one in catalog["resources"]["data"] if one["title"] == "/b")
    assert file.pop("resource")
    assert file == {
        "type": "File", "title": "/b", "exported": False, "tags": ["database", "file"], "file": "/m.pp", "line": 20,
        "parameters": {"mode": "0600", "n": "5", "flag": True},
    }  # fmt: skip
    assert catalog["edges"]["data"] == [
        {"source_type": "File", "source_title": "/a", "target_type": "File", "target_title": "/b",
         "relationship": "before"}
    ]  # fmt: skip
    (resource_,) = rows(reader, 'resources{certname="n1" and title="main"}')
    assert set(resource_) == set(ENTITIES["resources"].fields) - {"tag"}
    assert (resource_["parameters"], resource_["tags"]) == ({}, ["stage"])


def test_every_way_to_the_resources_shows_the_same(reader: Connection) -> None:
    """By node, by content (few and many), by what is exported."""
    every = rows(reader, "resources{}")
    key = lambda row: (row["certname"], row["type"], row["title"])  # noqa: E731
    assert len(every) == 9
    by_content = rows(reader, 'resources{title ~ "."}')
    by_node = [row for name in ("n0", "n1", "n2") for row in rows(reader, f'resources{{certname="{name}"}}')]
    exported = rows(reader, "resources{exported=true}") + rows(reader, "resources{exported=false}")
    for others in (by_content, by_node, exported):
        assert sorted(others, key=key) == sorted(every, key=key)


def test_an_exported_resource_is_shown_alike_with_its_text_and_without(
    connection: Connection, reader: Connection
) -> None:
    """Housekeeping makes the texts once, and takes away what no resource has any more; they are what is shown."""
    asked = "resources{exported = true}"
    before = rows(reader, asked)
    assert write_exported_texts(connection) == {"exported_texts": 0, "exported_texts_written": 3}
    assert write_exported_texts(connection) == {"exported_texts": 0, "exported_texts_written": 0}
    assert sorted(rows(reader, asked), key=str) == sorted(before, key=str)
    assert values(reader, "resources[parameters.key]{exported = true}") == {"n0", "n1", "n2"}

    connection.execute("""UPDATE exported_texts SET tags = '["kept"]', parameters = '{"kept": 1}'""")
    assert [(row["tags"], row["parameters"]) for row in rows(reader, asked)] == [(["kept"], {"kept": 1})] * 3
    assert values(reader, 'resources[title]{exported = true and tag = "sshkey"}') == {"n0", "n1", "n2"}

    Pipeline(connection).take(wire_body("n0", 9, [BARE]))
    done = keep_catalogs(connection, HousekeepingSettings())
    assert (done["exported_texts"], done["exported_texts_written"]) == (1, 0)


def test_what_is_not_asked_of_an_exported_resource_is_not_looked_for(reader: Connection) -> None:
    """Its place and its text; ordered by the place it is."""
    for asked, has_place, has_text in (
        ("resources[title]{exported = true}", False, False),
        ("resources[title, line]{exported = true}", True, False),
        ("resources[title]{exported = true and line = 1}", True, False),
        ("resources[title]{exported = true order by file}", True, False),
        ("resources[tags]{exported = true}", False, True),
        ("resources{exported = true}", True, True),
    ):
        made = compile_query(read_query(parse_pql(asked))).rows
        assert ("position_sets" in made, "exported_texts" in made) == (has_place, has_text), asked
        rows(reader, asked)


def test_from_many_resources_to_their_nodes(connection: Connection, reader: Connection) -> None:
    """More contents than are looked for one by one: the arrays are taken apart, with the same result."""
    pipeline = Pipeline(connection)
    many = [resource(f"/many/{number}", parameters={"n": number}, line=number) for number in range(400)]
    pipeline.take(wire_body("many", 1, many))
    found = values(reader, 'resources[title,line]{title ~ "^/many"}')
    assert found == {(f"/many/{number}", number) for number in range(400)}
    assert values(reader, 'resources[title,line]{title ~ "^/many/12.$"}') == {
        (f"/many/{n}", n) for n in range(120, 130)
    }


WRONG = [
    (
        "nodes{foo=1}",
        "'foo' is not a queryable object for nodes. Known queryable objects are 'cached_catalog_status', ",
    ),
    ("nodes[foo]{}", "Can't extract unknown 'nodes' field 'foo'. Acceptable fields are "),
    ("resources[tag]{}", "Can't extract unknown 'resources' field 'tag'"),
    (
        "nodes{foo in nodes[certname]{}}",
        "Can't match on unknown 'nodes' field 'foo' for 'in'. Acceptable fields are ",
    ),
    (
        "nodes{order by foo}",
        "Unrecognized column 'foo' specified in :order_by; Supported columns are 'cached_",
    ),
    ("nodes{certname > 'a'}", "Query operators >,>=,<,<= are not allowed on field certname"),
    ("nodes{certname ~> ['a']}", "Query operator ~> is not allowed on field certname"),
    ("nodes{certname = 5}", "incompatible with field 'certname'"),
    ("nodes{expired = 'x'}", "'x' is not a valid timestamp value"),
    ("nodes{expired > 5.5}", "'5.5' is not a valid timestamp value"),
    ("resources{line = 'a'}", 'Argument "a" is incompatible with numeric field "line".'),
    ("resources{line > 'a'}", 'Argument "a" and operator ">" have incompatible types.'),
    ("resources{exported = 'x'}", "incompatible with field 'exported'"),
    ("resources{title ~ '['}", "ERROR: invalid regular expression: brackets [] not balanced"),
    ("resources{tags in ['a']}", "Operator in...array is not supported on array types"),
    ("resources{facts.x = 1}", "'facts.x' is not a queryable object for resources"),
    ("catalogs{resources = 3}", "'resources' is not a queryable object for catalogs"),
    ("resources{edges{}}", "No implicit relationship for entity 'edges'"),
    ("nodes{node_state='foo'}", "node_state is one of active, inactive and any"),
    ("nodes{latest_report?=true}", "'latest_report?' is not a queryable object for nodes"),
    ("nodes[avg(certname)]{}", "ERROR: function"),
    ("nodes[certname]{group by expired}", "ERROR: column"),
    ('resources[parameters.match("a")]{}', "match() is understood on the left"),
]


def test_what_is_wrong_is_said_in_words_that_people_know(reader: Connection) -> None:
    """PuppetDB's, where it has any; and PostgreSQL's own of types and patterns."""
    for asked, said in WRONG:
        with pytest.raises(BadQuery) as caught:
            rows(reader, asked)
        assert said in str(caught.value), asked
        reader.rollback()


def test_text_of_a_client_is_never_sql(reader: Connection) -> None:
    """In every place where he may put some."""
    evil = "'; DROP TABLE nodes; --%s%(x)s\" \\ \0 \ud800 é {0}"
    for asked in (
        ["from", "nodes", ["=", "certname", evil]],
        ["from", "nodes", ["in", "certname", ["array", [evil]]]],
        ["from", "resources", ["=", ["parameter", evil], evil]],
        ["from", "resources", ["=", "tag", evil]],
        ["from", "resources", ["=", "parameters." + evil.replace(".", ""), evil]],
        ["from", "resources", ["=", f'parameters.match("{evil}")', evil]],
        ["from", "resources", ["extract", [["function", "to_string", "line", "9" + evil]]]],
    ):  # fmt: skip
        try:
            rows(reader, asked)
        except BadQuery:
            reader.rollback()
    assert values(reader, "nodes[count()]{}") == {3}


def test_a_reader_cannot_write(reader: Connection) -> None:
    """Whatever the statement, and whatever the role may do."""
    with pytest.raises(Exception, match="read-only"):
        reader.execute("UPDATE nodes SET deactivated = now()")


def test_rows_come_in_pieces_of_bounded_size(connection: Connection, reader: Connection) -> None:
    """Large rows singly, small ones by the hundred; and the number of all of them beforehand."""
    pipeline = Pipeline(connection)
    large = [resource(f"/l{number}", parameters={"content": "x" * 60_000}) for number in range(20)]
    pipeline.take(wire_body("large", 1, large))
    running = RunningQuery(reader, 30)
    query = compile_query(Query("resources", where=equals("certname", "large"), limit=15))
    piece = finish(reader, running.begin(query, with_total=True))
    sizes = []
    while piece:
        sizes.append(sum(map(len, piece)))
        piece = finish(reader, running.next_piece())
    assert finish(reader, running.close())
    assert running.total == 20
    assert len(sizes) >= 3
    assert max(sizes) < PIECE_BYTES + ROWS * 61_000


def test_a_query_ends_in_time(reader: Connection) -> None:
    """By PostgreSQL's own clock, and the connection serves on."""
    running = RunningQuery(reader, 0.05)
    slow = compile_query(read_query(parse_pql("nodes{certname ~ '.'}")))
    slow = slow._replace(rows=f"SELECT 'x' FROM pg_sleep(5), ({slow.rows}) AS q")
    with pytest.raises(TooSlow):
        finish(reader, running.begin(slow))
    assert finish(reader, running.close())
    assert values(reader, "nodes[count()]{}") == {3}


def test_what_is_asked_again_is_prepared_and_so_many_and_no_more(reader: Connection) -> None:
    """Not what is asked once; those asked longest ago go, and are still answered."""

    def prepared() -> int:
        (count,) = reader.execute(
            "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'ingest%'", prepare=False
        ).fetchone() or (0,)
        return int(str(count))

    asked = [f"nodes[certname]{{limit {number}}}" for number in range(1, PLANS_MAX + 5)]
    assert len(values(reader, asked[0])) == 1
    assert prepared() == 0
    for _ in range(3):
        for one in asked:
            assert values(reader, one)
    assert prepared() == PLANS_MAX
    with pytest.raises(BadQuery):
        rows(reader, 'nodes{certname ~ "("}')
    reader.rollback()
    assert len(values(reader, asked[0])) == 1


def test_rows_have_their_total_also_where_there_are_none(reader: Connection) -> None:
    """Of one moment, and from one statement; the order of the rows stays."""
    tree = read_query(parse_pql("nodes[certname]{order by certname desc limit 2}"))
    for query, found in ((tree, [b"n2", b"n1"]), (read_query(parse_pql("nodes[certname]{offset 9}")), [])):
        running = RunningQuery(reader, 30)
        piece = finish(reader, running.begin(compile_query(query), with_total=True))
        assert [json.loads(row)["certname"].encode() for row in piece] == found
        assert running.total == 3
        assert finish(reader, running.close())


def test_parents_are_known_or_not(reader: Connection) -> None:
    """Deactivated nodes are known, too."""
    assert known(reader, "node", "n2")
    assert known(reader, "catalog", "n0")
    assert not known(reader, "node", "n9")
    assert not known(reader, "environment", "x")
    assert known(reader, "environment", "production")
    assert not known(reader, "producer", "x")


def test_a_schema_that_others_may_create_in_changes_nothing(
    postgres: Postgres, connection: Connection, database: str
) -> None:
    """Statements name their tables in full: nothing is found by a search_path."""
    fleet(connection)
    connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with connect(database) as other:
        assert other.pinned.home.is_open
        assert len(rows(other, 'resources{title="/a"}')) == 2
        assert len(rows(other, "edges{}")) == 2


def test_a_role_for_queries_reads_what_they_need_and_no_more(
    connection: Connection, database: str, postgres: Postgres
) -> None:
    """Every entity; neither quarantine nor locks; and it writes nothing, whatever its session says."""
    fleet(connection)
    connection.execute("CREATE ROLE asks LOGIN")
    try:
        grant(connection, None, None, "asks")
        opened = open_reader(make_conninfo(database, user="asks"), connect_timeout_s=5, timeout_s=30)
        for entity in ENTITIES:
            rows(opened, ["from", entity])
        rows(opened, "resources{exported = true}")
        for kind in ("node", "catalog", "factset", "environment", "producer"):
            known(opened, kind, "n0")
        assert count_population(opened)[:2] == (2, 1)
        require_current(opened)
        opened.execute("SET default_transaction_read_only = off")
        for forbidden in (
            "SELECT * FROM quarantine",
            "SELECT * FROM node_locks",
            "UPDATE nodes SET expired = now()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                opened.execute(forbidden)
        opened.close()
    finally:
        connection.execute("DROP OWNED BY asks; DROP ROLE asks")


@pytest.mark.parametrize(
    "asked",
    [
        ["from", "inventory", ["or", *(["=", f"facts.x{n}.y", n] for n in range(300))]],
        ["from", "inventory", ["or", *(["null?", f"facts.x{n}", True] for n in range(300))]],
        ["from", "inventory", ["or", *(["in", f"facts.x{n}", ["array", [n]]] for n in range(300))]],
        ["from", "inventory", ["or", *(["=", f'facts.match("{n}").y', n] for n in range(300))]],
        ["from", "inventory", ["extract", [["function", "count"]], ["group_by", *(f"facts.x{n}" for n in range(300))]]],
        ["from", "facts", ["or", *(["=", "value", n] for n in range(300))]],
        ["from", "facts", ["or", *(["in", "value", ["array", [n]]] for n in range(300))]],
        ["from", "nodes", ["or", *(["subquery", "facts", ["=", "name", str(n)]] for n in range(300))]],
        ["from", "nodes", ["or", *(["=", ["fact", str(n)], "x"] for n in range(300))]],
        ["from", "nodes",
         ["or", *(["in", "certname", ["from", "events", ["extract", "certname"]]] for _ in range(300))]],
    ],
)  # fmt: skip
def test_a_query_for_too_much_at_once_is_not_even_planned(asked: list[Any]) -> None:
    """Each place where facts or another entity are looked for costs PostgreSQL megabytes before the first row."""
    with pytest.raises(BadQuery, match="in more than 200 places"):
        compile_query(read_query(asked))
    fewer = json.loads(json.dumps(asked))
    filtered = fewer[2][2] if fewer[2][0] == "extract" else fewer[2]
    del filtered[60:]
    compile_query(read_query(fewer))


def test_counts_are_of_so_many_groups() -> None:
    """Each is a part of the statement."""
    with pytest.raises(BadQuery, match="more than 10 values"):
        compile_asked(Query("aggregate_event_counts"), {"summarize_by": ",".join(["certname"] * 11)}, 0.0)


def test_resources_that_are_only_counted_are_as_many(reader: Connection) -> None:
    """By what their arrays say, whatever nodes are asked for; a condition on a resource is looked for in each."""
    for condition in (
        "",
        'certname = "n0"',
        'certname ~ "1" or certname = "n2"',
        '!environment = "x"',
        'certname = "n9"',
    ):
        found = rows(reader, f"resources[certname,title]{{{condition}}}")
        assert values(reader, f"resources[count()]{{{condition}}}") == {len(found)}
        counts = {
            (certname, sum(row["certname"] == certname for row in found))
            for certname in {row["certname"] for row in found}
        }
        group = "group by certname" if not condition else f"{condition} group by certname"
        assert values(reader, f"resources[certname,count()]{{{group}}}") == counts
    titled = rows(reader, 'resources[title]{type = "File"}')
    assert values(reader, 'resources[count()]{type = "File"}') == {len(titled)}


def test_a_question_that_nobody_waits_for_any_more_is_still_under_way(connection: Connection) -> None:
    """Whether something is there, too: who leaves in the middle must not leave the connection to the next one as it is."""
    running = RunningQuery(connection, 30)
    next(running.find("node", "n0"))
    assert running.is_under_way
    assert finish(connection, running.close())
    assert not running.is_under_way
    assert not known(connection, "node", "n0")
