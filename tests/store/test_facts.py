"""Facts in the database: stored is what was sent, and a run writes what moved."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.core.delivery.work import Outcome
from ingest.core.facts.stable import REST
from ingest.errors import Refused, Rejected
from ingest.store.connection import Connection, connect
from ingest.store.facts.reading import facts_named, read_factset
from ingest.store.housekeeping import (
    collect_garbage,
    expire_nodes,
    forget_nodes,
    mend_deactivations,
    purge_nodes,
)
from lab import real_facts as corpus
from lab.facts import FactsPipeline, facts_body, sent
from lab.servers import Postgres
from lab.store_model import LATE, Pipeline, at, resource, wire_body

NODE = "n.example.com"
TABLES = (
    "node_facts",
    "node_own_facts",
    "fact_bases",
    "fact_shapes",
    "node_packages",
    "package_sets",
    "package_versions",
)


@pytest.fixture
def pipeline(connection: Connection) -> FactsPipeline:
    return FactsPipeline(connection)


@pytest.fixture
def other(database: str) -> Iterator[FactsPipeline]:
    """Another writer."""
    opened = connect(database)
    yield FactsPipeline(opened)
    opened.close()


def exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def stored(connection: Connection, certname: str = NODE) -> dict[str, Any]:
    values: dict[str, Any] = read_factset(connection, certname)["values"]
    return values


def viewed(connection: Connection, certname: str = NODE) -> dict[str, Any]:
    rows: Any = connection.execute("SELECT name, value FROM facts WHERE certname = %s", [certname]).fetchall()
    return dict(rows)


def count(connection: Connection, table: str) -> int:
    row: Any = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[call-overload]
    return int(row[0])


def own(connection: Connection) -> dict[int, tuple[list[int], list[str]]]:
    rows: Any = connection.execute("SELECT node_id, facts, leaves FROM node_own_facts").fetchall()
    return {node_id: (facts, leaves) for node_id, facts, leaves in rows}


def many(**changed: Any) -> dict[str, Any]:
    """Facts that nodes have in common, and some that they have not."""
    return {f"fact_{number}": f"value {number}" for number in range(60)} | changed


@pytest.mark.parametrize("rounds", [corpus.ROUNDS, tuple(reversed(corpus.ROUNDS))])
def test_real_rounds_end_at_the_newest_in_any_order(
    connection: Connection, pipeline: FactsPipeline, rounds: tuple[int, ...]
) -> None:
    """Stored is what was sent: read back, in the views, nested and leaf by leaf."""
    for round_ in rounds:
        pipeline.take(*(corpus.body(role, round_) for role in corpus.ROLES))
        for role in corpus.ROLES:
            body = corpus.body(role, max(rounds[: rounds.index(round_) + 1]))
            payload = json.loads(body)["payload"]
            assert exact(stored(connection, payload["certname"])) == exact(sent(body))
            assert exact(viewed(connection, payload["certname"])) == exact(sent(body))
    row: Any = connection.execute("SELECT count(*), count(DISTINCT certname) FROM fact_contents").fetchone()
    assert row[0] > 2500
    assert row[1] == len(corpus.ROLES)


def test_what_nodes_share_is_stored_once(connection: Connection, pipeline: FactsPipeline) -> None:
    """A node that is like another has a row of its own facts, and no base and no shape of its own."""
    bodies = [facts_body(f"n{n}", 1, many(hostname=f"n{n}")) for n in range(20)]
    pipeline.take(*bodies[:10])
    pipeline.take(*bodies[10:])
    assert count(connection, "fact_bases") == count(connection, "fact_shapes") == 1
    assert sorted(leaves for _, leaves in own(connection).values()) == sorted(
        [f'"n{n}"'] for n in range(1, 20)
    )


def test_two_writers_share_what_they_bring(
    connection: Connection, pipeline: FactsPipeline, other: FactsPipeline
) -> None:
    """The second one finds the base that the first one inserted."""
    pipeline.take(facts_body("a", 1, many(hostname="a")))
    other.take(facts_body("b", 1, many(hostname="b")))
    assert count(connection, "fact_bases") == 1
    assert exact(stored(connection, "b")) == exact(many(hostname="b"))


def test_a_run_writes_one_row_and_it_is_hot(connection: Connection, pipeline: FactsPipeline) -> None:
    """Whatever leaves change: one update of one narrow row, without an index that changes."""
    names = [f"n{n}" for n in range(8)]
    pipeline.take(*(facts_body(name, 1, many(hostname=name, up=1)) for name in names))
    pipeline.take(*(facts_body(name, 2, many(hostname=name, up=2, fact_7="new")) for name in names))
    connection.execute("VACUUM node_facts")
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.execute("SELECT pg_stat_reset()")
    for minute in range(3, 8):
        outcomes = pipeline.take(
            *(
                facts_body(name, minute, many(hostname=name, up=minute, fact_7=f"new {minute}"))
                for name in names
            )
        )
        assert outcomes == [Outcome.STORED] * len(names)
        assert pipeline.lane.counts.rows_written == len(names)
    connection.execute("SELECT pg_stat_force_next_flush()")
    rows: Any = connection.execute(
        "SELECT relname, n_tup_ins + n_tup_del, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
        " WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND relname <> 'node_locks'"
    ).fetchall()
    assert rows == [("node_facts", 0, 40, 40)]


def test_unchanged_facts_write_one_row_or_none(connection: Connection, pipeline: FactsPipeline) -> None:
    """The next run moves the time; the same message moves nothing."""
    first, second = facts_body(NODE, 1, many()), facts_body(NODE, 2, many())
    pipeline.take(first)
    assert pipeline.take(second) == [Outcome.UNCHANGED]
    assert pipeline.lane.counts.rows_written == 1
    assert pipeline.take(second) == [Outcome.UNCHANGED]
    assert pipeline.lane.counts.rows_written == 0
    row: Any = connection.execute("SELECT producer_timestamp FROM factsets").fetchone()
    assert row == (at(2),)


def test_a_changed_leaf_rewrites_no_factset(connection: Connection, pipeline: FactsPipeline) -> None:
    """A fact that was stable for ever moves in the narrow row alone, and comes to rest there."""
    old, new = "6.1.0-27-amd64", "6.1.0-28-amd64"
    common = many(mine="a", kernel=old, up=0)
    pipeline.take(facts_body("a", 1, common), facts_body(NODE, 1, common | {"mine": "b"}))
    before = own(connection)
    assert list(before.values()) == [([common_number(common, "mine")], ['"b"'])]
    for hours in range(1, 20):
        mine = common | {"mine": "b", "kernel": new, "up": hours}
        pipeline.take(facts_body(NODE, 2 + hours, mine), received_at=LATE + timedelta(hours=hours))
        assert pipeline.lane.counts.rows_written == 1
    assert exact(stored(connection)) == exact(mine)
    assert own(connection) == before


def common_number(facts: dict[str, Any], name: str) -> int:
    return sorted(facts).index(name)


def run_of_days(pipeline: FactsPipeline, days: int, values: Any, start: int = 10) -> list[int]:
    """A run an hour; the rows that each wrote."""
    written = []
    for hour in range(days * 24):
        body = facts_body(NODE, start + hour, values(hour))
        pipeline.take(body, received_at=LATE + timedelta(hours=start + hour))
        written.append(pipeline.lane.counts.rows_written)
    return written


def test_what_comes_to_rest_becomes_the_nodes_own(connection: Connection, pipeline: FactsPipeline) -> None:
    """Once a day at most, and only when there is enough of it; the moving row gets narrow again."""
    long = "a value of more than some fifty bytes, which it does not pay to write with every run"
    facts = many(up=0, release="old")
    pipeline.take(facts_body("a", 1, facts), facts_body(NODE, 1, facts))
    written = run_of_days(pipeline, 3, lambda hour: facts | {"up": hour, "release": long})
    assert sorted(set(written)) == [1, 2]
    assert written.count(2) == 1  # the row of own facts, when the first day had passed
    assert written.index(2) in (24, 25)
    row: Any = connection.execute(
        "SELECT cardinality(places) FROM node_facts ORDER BY node_id DESC LIMIT 1"
    ).fetchone()
    assert row == (1,)
    assert exact(stored(connection)) == exact(facts | {"up": 71, "release": long})
    assert count(connection, "fact_bases") == 1


def test_a_few_bytes_at_rest_are_not_worth_a_row(connection: Connection, pipeline: FactsPipeline) -> None:
    """They stay where they are, however many days."""
    facts = many(up=0, release="old")
    pipeline.take(facts_body(NODE, 1, facts))
    written = run_of_days(pipeline, 4, lambda hour: facts | {"up": hour, "release": "new"})
    assert set(written) == {1}
    assert exact(stored(connection)) == exact(facts | {"up": 95, "release": "new"})


def test_a_leaf_that_never_stops_stays_in_the_narrow_row(
    connection: Connection, pipeline: FactsPipeline
) -> None:
    """Also when it is large."""
    facts = many(noise="x" * 500)
    pipeline.take(facts_body(NODE, 1, facts))
    written = run_of_days(pipeline, 4, lambda hour: facts | {"noise": f"{hour}" * 300})
    assert set(written) == {1}


def test_what_is_known_to_move_never_rests(connection: Connection) -> None:
    """``facts_volatile``: from the first run on it is in nobody's own facts."""
    pipeline = FactsPipeline(connection, volatile=["disks.*.serial"])
    facts = many(disks={"sda": {"serial": "s" * 80, "size": 1}})
    pipeline.take(
        facts_body("a", 1, many(disks={"sda": {"serial": "t" * 80, "size": 1}})), facts_body(NODE, 1, facts)
    )
    assert own(connection) == {}
    written = run_of_days(pipeline, 3, lambda hour: facts | {"fact_1": f"{hour}"})
    assert set(written) == {1}
    assert exact(stored(connection)) == exact(facts | {"fact_1": "71"})


def test_a_shape_that_changes_with_each_run(connection: Connection, pipeline: FactsPipeline) -> None:
    """Is stored each time, and collected when it is no more."""
    for minute in range(1, 30):
        values = many(interfaces={f"veth{minute}{n}": {"mtu": 1500, "ip": None} for n in range(minute % 5)})
        assert pipeline.take(facts_body(NODE, minute, values)) == [Outcome.STORED]
        assert exact(stored(connection)) == exact(values) == exact(viewed(connection))
    for _ in range(2):
        collect_garbage(connection, pause=lambda _: None)
    assert count(connection, "fact_bases") == count(connection, "fact_shapes") == 1
    assert exact(stored(connection)) == exact(values)


def test_a_hundred_thousand_paths(connection: Connection, pipeline: FactsPipeline) -> None:
    """Are stored, changed one by one and all at once, in time that grows with them."""
    values: dict[str, Any] = {f"f{n}": {f"k{m}": m for m in range(100)} for n in range(1000)}
    pipeline.take(facts_body(NODE, 1, values))
    values["f999"]["k99"] = "changed"
    assert pipeline.take(facts_body(NODE, 2, values)) == [Outcome.STORED]
    assert exact(stored(connection)) == exact(values)
    values = {name: {key: f"{value} more" for key, value in its.items()} for name, its in values.items()}
    assert pipeline.take(facts_body(NODE, 3, values)) == [Outcome.STORED]
    assert exact(stored(connection)) == exact(values)
    row: Any = connection.execute("SELECT value FROM facts WHERE name = 'f999'").fetchone()
    assert row[0] == values["f999"]


ODD = {
    "numbers": [0, -0.0, 0.0, 1, 1.0, 1e22, 1e-7, 10**40, 2**64, -1],
    "empty": {"hash": {}, "array": [], "string": "", "null": None},
    "": "no name",
    "a.b#~c": {"x.y": {'"': [True, False]}, "#~": 1, "0": "a digit"},
    "ünï 🙂": {"kéy": "välue"},
    "nul\x00": {"nul\x00": "nul\x00 \\u0000"},
    "lone": "\udc80",
    "alone": {},
    "alone too": [],
    "trusted": {"authenticated": "remote", "certname": NODE, "extensions": {"pp_role": "web"}},
}


def test_odd_values_come_back_as_they_were(connection: Connection, pipeline: FactsPipeline) -> None:
    """From the first run and from a run that changed them; the view has the nearest that jsonb can hold."""
    base = facts_body("a", 1, {name: f"other {name!r}" for name in ODD})
    data = facts_body(NODE, 1, ODD)
    pipeline.take(base, data)
    assert exact(stored(connection)) == exact(sent(data))
    changed = {**ODD, "numbers": [1, 0.0, -0.0, 1.0, 1, 10**41, 1e-8, 1e22, 2**65, 0], "lone": "\udc81\x00"}
    assert pipeline.take(facts_body(NODE, 2, changed)) == [Outcome.STORED]
    assert pipeline.lane.counts.rows_written == 1
    assert exact(stored(connection)) == exact(sent(facts_body(NODE, 2, changed)))
    found = viewed(connection)
    assert found["nul\ufffd"] == {"nul\ufffd": "nul\ufffd \\u0000"}
    assert found["lone"].strip("\ufffd") == ""
    assert found[""] == "no name"
    assert found["a.b#~c"] == ODD["a.b#~c"]
    assert found["empty"] == ODD["empty"]


@pytest.mark.parametrize("values", [{}, {"only": {}}, {"": {}}, {"": ""}, {"only": []}, {"only": None}])
def test_hardly_any_facts(connection: Connection, pipeline: FactsPipeline, values: dict[str, Any]) -> None:
    """None, one without leaves, one without a name."""
    assert pipeline.take(facts_body(NODE, 1, values)) == [Outcome.STORED]
    assert stored(connection) == viewed(connection) == values
    assert pipeline.take(facts_body(NODE, 2, many())) == [Outcome.STORED]
    assert pipeline.take(facts_body(NODE, 3, values)) == [Outcome.STORED]
    assert stored(connection) == viewed(connection) == values
    row: Any = connection.execute("SELECT facts FROM factsets").fetchone()
    assert row == (values,)


def test_an_older_factset_changes_nothing(connection: Connection, pipeline: FactsPipeline) -> None:
    """Stale is decided by producer_timestamp; in one batch the newest counts."""
    pipeline.take(facts_body(NODE, 5, {"a": 5}))
    assert pipeline.take(facts_body(NODE, 4, {"a": 4})) == [Outcome.STALE]
    bodies = [facts_body(NODE, minute, {"a": minute}) for minute in (6, 8, 7)]
    assert pipeline.take(*bodies) == [Outcome.SUPERSEDED, Outcome.STORED, Outcome.SUPERSEDED]
    assert stored(connection) == {"a": 8}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_equal_times_end_the_same_in_any_order(
    connection: Connection, pipeline: FactsPipeline, other: FactsPipeline, order: tuple[int, int]
) -> None:
    """Two factsets of one instant: the content decides, not the arrival."""
    bodies = [facts_body(NODE, 1, {"a": value}) for value in ("x", "y")]
    for place in order:
        pipeline.take(bodies[place])
    final = stored(connection)
    other.take(*bodies)
    assert stored(connection) == final


def test_facts_from_the_future_are_newer_than_nothing(
    connection: Connection, pipeline: FactsPipeline
) -> None:
    """A clock ten years ahead counts as the time of arrival, and shuts nobody out."""
    pipeline.take(facts_body(NODE, 10 * 365 * 24 * 60, {"a": 1}), received_at=at(0))
    assert pipeline.take(facts_body(NODE, 5, {"a": 2}), received_at=at(5)) == [Outcome.STORED]
    assert stored(connection) == {"a": 2}


_examples = itertools.count()
PACKAGES = (None, (), (("p", "1", "apt"),), (("p", "2", "apt"), ("q", "1", "gem")))
VALUES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(
        [1, 1.0, "x", None, {}, [], {"k": 1}, {"k": 2}, {"k": {"l": [1, 2]}}, [1, "y"], "z" * 60]
    ),
    max_size=4,
)
MESSAGES = st.lists(
    st.tuples(st.sampled_from(["n1", "n2"]), st.integers(1, 12), VALUES, st.sampled_from(PACKAGES)),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=MESSAGES, seed=st.integers(0, 1000))
def test_after_any_order_duplication_and_loss_the_newest_counts(
    connection: Connection, messages: list[Any], seed: int
) -> None:
    """Messages in any order and batches, some twice, a batch undone in between: every node is at its newest facts."""
    chance = random.Random(seed)
    example = next(_examples)  # all of them in one database
    names = {name: f"{name}-{example}" for name in ("n1", "n2")}
    bodies = [
        facts_body(names[name], minute, values, packages) for name, minute, values, packages in messages
    ]
    queue = [*bodies, *chance.choices(bodies, k=3)]
    chance.shuffle(queue)
    writers = [FactsPipeline(connection), FactsPipeline(connection)]
    while queue:
        batch = [queue.pop() for _ in range(min(len(queue), chance.randint(1, 4)))]
        pipeline = chance.choice(writers)
        if chance.random() < 0.3:  # its transaction is undone at the end, and the broker delivers again
            works = [pipeline.decode(body, complete=True) for body in batch]
            refused = msgspec.structs.replace(works[0], certname="no\0name")
            with pytest.raises(Rejected):
                pipeline.lane.apply([*works, refused])
        pipeline.take(*batch)
    for name, certname in names.items():
        mine = [message for message in messages if message[0] == name]
        if not mine:
            continue
        newest = max(minute for _, minute, *_ in mine)
        candidates = [
            (exact(values), sorted(map(list, packages or ())))
            for _, minute, values, packages in mine
            if minute == newest
        ]
        found = read_factset(connection, certname)
        assert (exact(found["values"]), found.get("package_inventory", [])) in candidates
        assert exact(viewed(connection, certname)) == exact(found["values"])


def packages_of(connection: Connection, certname: str = NODE) -> list[list[str]]:
    found: list[list[str]] = read_factset(connection, certname).get("package_inventory", [])
    return found


def test_package_inventories_are_sets_with_deltas(connection: Connection, pipeline: FactsPipeline) -> None:
    """A fleet's upgrade of a package writes one version and a few numbers a node."""
    packages = [[f"package-{n:03}", "1.0", "apt"] for n in range(200)]
    upgraded = [["package-000", "1.1", "apt"], *packages[1:]]
    names = [f"n{n}" for n in range(5)]
    pipeline.take(*(facts_body(name, 1, many(), packages) for name in names))
    assert count(connection, "package_sets") == 1
    pipeline.take(*(facts_body(name, 2, many(), upgraded) for name in names))
    assert pipeline.lane.counts.rows_written == 1 + 2 * len(names)
    assert count(connection, "package_sets") == 1
    assert packages_of(connection, "n3") == sorted(upgraded)
    rows: Any = connection.execute(
        "SELECT version FROM package_inventory WHERE package_name = 'package-000'"
    ).fetchall()
    assert rows == [("1.1",)] * len(names)
    assert pipeline.take(facts_body("n3", 3, many(), upgraded)) == [Outcome.UNCHANGED]
    pipeline.take(facts_body("n4", 3, many()))
    assert packages_of(connection, "n4") == []
    assert count(connection, "node_packages") == 4


def test_an_inventory_that_its_decoder_has_sent_is_asked_for(
    connection: Connection, pipeline: FactsPipeline, other: FactsPipeline
) -> None:
    """Another writer that never had its packages, or whose database lost them, asks for all of the message."""
    packages = [["p", "1", "apt"], ["q", "1", "apt"]]
    body = facts_body(NODE, 1, {"a": 1}, packages)
    pipeline.decode(body)  # what was sent before, and never arrived
    assert pipeline.take(body) == [Outcome.STORED]
    assert packages_of(connection) == packages
    assert stored(connection) == {"a": 1}


def test_facts_bring_a_node_back_and_newer_ones_keep_it(
    connection: Connection, pipeline: FactsPipeline
) -> None:
    """After a deactivation that is older, and after any expiry; an older deactivation does nothing."""

    def active() -> bool:
        return bool(viewed(connection))

    def deactivate(minute: int) -> Outcome:
        payload = {"certname": NODE, "producer_timestamp": at(minute).isoformat()}
        command = {"command": "deactivate node", "version": 3, "payload": payload}
        return Pipeline(connection).take(json.dumps(command).encode())[0]

    pipeline.take(facts_body(NODE, 5, {"a": 1}))
    assert deactivate(4) is Outcome.STALE
    assert active()
    assert deactivate(6) is Outcome.STORED
    assert not active()
    pipeline.take(facts_body(NODE, 5, {"a": 1}))
    assert not active()
    pipeline.take(facts_body(NODE, 7, {"a": 1}))
    assert active()
    connection.execute("UPDATE node_facts SET received_at = now() - interval '8 days'")
    assert expire_nodes(connection, timedelta(days=7)) == [NODE]
    assert not active()
    pipeline.take(facts_body(NODE, 7, {"a": 1}))
    assert active()


def test_a_node_is_heard_of_by_facts_or_catalog(connection: Connection, pipeline: FactsPipeline) -> None:
    """Either keeps it from expiring; one that has facts only is not forgotten."""
    pipeline.take(facts_body(NODE, 5, {"a": 1}), received_at=datetime.now(at(0).tzinfo))
    Pipeline(connection).take(wire_body(NODE, 1, [resource("/x")]), received_at=at(1))
    assert expire_nodes(connection, timedelta(days=7)) == []
    pipeline.take(facts_body("alone", 5, {"a": 1}))
    assert forget_nodes(connection, timedelta(0)) == 0
    assert stored(connection, "alone") == {"a": 1}


def test_the_version_before_deletes_no_node_that_has_facts(
    connection: Connection, pipeline: FactsPipeline
) -> None:
    """Its statements know nothing of facts: neither the node nor the names of its environment go."""
    pipeline.take(facts_body(NODE, 5, {"a": 1}))
    connection.execute("DELETE FROM nodes n WHERE NOT EXISTS (SELECT FROM catalogs c WHERE c.node_id = n.id)")
    connection.execute("DELETE FROM environments")
    connection.execute("DELETE FROM producers")
    found = read_factset(connection, NODE)
    assert (found["environment"], found["producer"], found["values"]) == (
        "production",
        "puppet.example.com",
        {"a": 1},
    )


def test_a_purged_node_leaves_nothing(connection: Connection, pipeline: FactsPipeline) -> None:
    """Neither rows nor, after two runs of garbage collection, content."""
    pipeline.take(
        facts_body("a", 1, many(), [["p", "1", "apt"]]),
        facts_body(NODE, 1, many(mine=2), [["p", "2", "apt"]]),
    )
    connection.execute("UPDATE nodes SET deactivated = now() - interval '30 days'")
    assert purge_nodes(connection, timedelta(days=14)) == 2
    assert mend_deactivations(connection, timedelta(days=1)) == 0
    for _ in range(2):
        collect_garbage(connection, pause=lambda _: None)
    assert [count(connection, table) for table in (*TABLES, "environments", "producers")] == [0] * 9
    with pytest.raises(Refused):
        read_factset(connection, NODE)
    pipeline.take(facts_body(NODE, 2, many()))
    assert exact(stored(connection)) == exact(many())


def test_content_that_a_writer_takes_up_again_is_spared(
    connection: Connection, pipeline: FactsPipeline, other: FactsPipeline
) -> None:
    """Between the look and the deletion a writer refers to a base and to packages by ids in its cache: they stay."""
    packages = [["p", "1", "apt"], ["q", "1", "apt"]]
    pipeline.take(facts_body(NODE, 1, many(), packages))
    pipeline.take(facts_body(NODE, 2, {"a": 1}))
    again = facts_body(NODE, 3, many(), packages)
    pending = [lambda: pipeline.take(again)]

    def pause(_: float) -> None:
        if pending:
            pending.pop()()

    collect_garbage(connection, step_rows=1, pause=pause)
    assert not pending
    assert exact(stored(connection)) == exact(many())
    assert packages_of(connection) == packages
    collect_garbage(connection, pause=lambda _: None)
    assert exact(stored(connection)) == exact(many())
    assert packages_of(connection) == packages


def test_after_a_collection_writers_ask_anew(connection: Connection, pipeline: FactsPipeline) -> None:
    """The ids that a writer remembers may be gone, and so may what its decoder has sent."""
    packages = [["p", "1", "apt"]]
    pipeline.take(facts_body(NODE, 1, many(), packages))
    pipeline.take(facts_body(NODE, 2, {"a": 1}))
    for _ in range(3):
        collect_garbage(connection, pause=lambda _: None)
    assert count(connection, "package_versions") == 0
    assert pipeline.take(facts_body(NODE, 3, many(), packages)) == [Outcome.STORED]
    assert exact(stored(connection)) == exact(many())
    assert packages_of(connection) == packages


def test_what_a_fact_is_on_all_nodes(connection: Connection, pipeline: FactsPipeline) -> None:
    """By name, and by value with its type."""
    pipeline.take(
        *(facts_body(f"n{n}", 1, many(role="web" if n % 2 else 1, hostname=f"n{n}")) for n in range(4))
    )
    assert [(found["certname"], found["value"]) for found in facts_named(connection, "role")] == [
        ("n0", 1), ("n1", "web"), ("n2", 1), ("n3", "web")
    ]  # fmt: skip
    assert [found["certname"] for found in facts_named(connection, "role", "web")] == ["n1", "n3"]
    assert list(facts_named(connection, "role", "1")) == []
    assert list(facts_named(connection, "nothing")) == []


def test_the_views_of_the_field(connection: Connection, pipeline: FactsPipeline) -> None:
    """Factsets, inventory, paths with types, and the tables of the old storeconfigs."""
    values = {
        "os": {"name": "Debian", "release": {"major": 12}},
        "list": [1.5, None],
        "trusted": {"certname": NODE},
        "up": True,
    }
    pipeline.take(facts_body(NODE, 1, values, [["p", "1", "apt"]]))
    row: Any = connection.execute("SELECT facts, trusted, environment FROM inventory").fetchone()
    assert row == (values, {"certname": NODE}, "production")
    rows: Any = connection.execute("SELECT path, type, depth FROM fact_paths").fetchall()
    assert sorted(rows) == [
        ("list#~0", "float", 1), ("list#~1", "null", 1), ("os#~name", "string", 1), ("os#~release#~major", "integer", 2),
        ("trusted#~certname", "string", 1), ("up", "boolean", 0),
    ]  # fmt: skip
    rows = connection.execute("SELECT path, value FROM fact_contents WHERE name = 'os'").fetchall()
    assert sorted(rows) == [(["os", "name"], "Debian"), (["os", "release", "major"], 12)]
    rows = connection.execute("SELECT package_name, version, provider FROM packages").fetchall()
    assert rows == [("p", "1", "apt")]
    rows = connection.execute(
        "SELECT n.name, v.value FROM storeconfigs.fact_values v JOIN storeconfigs.fact_names n ON n.id = v.fact_name_id"
        " JOIN storeconfigs.hosts h ON h.id = v.host_id WHERE h.name = %s", [NODE],
    ).fetchall()  # fmt: skip
    assert dict(rows)["up"] == "true"
    assert json.loads(dict(rows)["os"]) == values["os"]


def test_what_is_blocked_reaches_no_table(connection: Connection) -> None:
    """Neither values nor names."""
    pipeline = FactsPipeline(connection, blocklist=["~^ec2_", "app.token"])
    pipeline.take(facts_body(NODE, 1, {"ec2_userdata": "hush", "app": {"token": "hush", "name": "x"}}))
    assert stored(connection) == {"app": {"name": "x"}}
    for table in TABLES:
        rows: Any = connection.execute(f"SELECT {table}::text FROM {table}").fetchall()  # type: ignore[call-overload]
        assert "hush" not in repr(rows)
        assert "ec2" not in repr(rows)


def test_a_day_of_rest_is_a_day() -> None:
    """As the decision says."""
    assert timedelta(days=1) == REST


def test_writers_of_catalogs_and_facts_never_wait_in_a_circle(postgres: Postgres, database: str) -> None:
    """Two at a time bring the same content and each other's new environments, in one batch with catalogs."""
    log_before = len(postgres.log())
    together = threading.Barrier(2)

    def work(mine: str, others: str) -> None:
        with connect(database) as opened:
            catalogs, facts = Pipeline(opened), FactsPipeline(opened)
            for turn in range(25):
                resources = [resource(f"/{turn}/{n}") for n in range(30)]
                catalog = wire_body(f"{mine}.example.com", turn, resources).replace(
                    b'"production"', f'"{mine}{turn}"'.encode()
                )
                body = facts_body(
                    f"{mine}.example.com",
                    turn,
                    many(turn=turn),
                    [["p", str(turn), "apt"]],
                    environment=f"{others}{turn}",
                )
                works = [catalogs.decode(catalog, complete=True), facts.decode(body, complete=True)]
                together.wait(30)
                settled = facts.lane.apply(works)
                assert {one.outcome for one in settled} == {Outcome.STORED}

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, *names) for names in (("a", "b"), ("b", "a"))]:
            done.result(60)
    assert "deadlock" not in postgres.log()[log_before:]
