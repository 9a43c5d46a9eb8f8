"""Lists of hosts, and which of two primaries is the right one: rules without a server."""

from __future__ import annotations

import pytest

from ingest.store.hosts import (
    DOUBT_S,
    Guard,
    Host,
    Standing,
    by_answer,
    first,
    hosts_of,
    is_left_behind,
    last,
    only,
    with_environment,
    with_target,
)

UP, DOWN = Standing(True, 1, True), Standing(True, 1, False)
A, B, C = Host("a", "", "5432"), Host("b", "", "5433"), Host("c", "", "5434")


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        ({}, [("", "", "")]),
        ({"host": "a"}, [("a", "", "")]),
        ({"host": "a,b"}, [("a", "", ""), ("b", "", "")]),
        ({"host": "a,b", "port": "5433"}, [("a", "", "5433"), ("b", "", "5433")]),
        ({"host": "a,b", "port": "1,2"}, [("a", "", "1"), ("b", "", "2")]),
        ({"host": "a,b", "port": ",2"}, [("a", "", ""), ("b", "", "2")]),
        ({"hostaddr": "::1,10.0.0.1"}, [("", "::1", ""), ("", "10.0.0.1", "")]),
        ({"host": "a,b", "hostaddr": "10.0.0.1,10.0.0.2"}, [("a", "10.0.0.1", ""), ("b", "10.0.0.2", "")]),
        ({"host": "/run/postgresql,b"}, [("/run/postgresql", "", ""), ("b", "", "")]),
        ({"service": "ingest"}, [("", "", "")]),
    ],
)
def test_a_conninfo_names_its_hosts_as_libpq_reads_it(
    given: dict[str, object], hosts: list[tuple[str, str, str]]
) -> None:
    """One port is everybody's; an empty place is the default."""
    assert list(hosts_of(given)) == hosts


@pytest.mark.parametrize(
    ("given", "environment", "target"),
    [
        ({"host": "a,b"}, {}, "read-write"),
        ({"hostaddr": "10.0.0.1,10.0.0.2"}, {}, "read-write"),
        ({"host": "a"}, {}, None),
        ({}, {}, None),
        ({}, {"PGHOST": "a,b"}, "read-write"),
        ({"host": "a"}, {"PGHOST": "a,b"}, None),
        ({"host": "a,b", "target_session_attrs": "any"}, {}, "any"),
        ({"host": "a,b", "target_session_attrs": "primary"}, {}, "primary"),
        ({"host": "a,b"}, {"PGTARGETSESSIONATTRS": "primary"}, None),
        ({"service": "ingest"}, {}, None),
        ({"dbname": "x"}, {"PGSERVICE": "ingest", "PGHOST": "a,b"}, None),
        ({"user": "u"}, {"PGHOSTADDR": "10.0.0.1,10.0.0.2", "PGPORT": "1,2"}, "read-write"),
        ({"host": "/run/a,/run/b"}, {}, "read-write"),
    ],
)
def test_of_several_hosts_the_one_that_takes_writes_is_meant(
    given: dict[str, object], environment: dict[str, str], target: str | None
) -> None:
    """Unless a person says something else, anywhere."""
    assert with_target(given, environment).get("target_session_attrs") == target


@pytest.mark.parametrize(
    ("given", "environment", "hosts"),
    [
        ({}, {"PGHOST": "a,b"}, [("a", "", ""), ("b", "", "")]),
        ({}, {"PGHOST": "a,b", "PGPORT": "1,2"}, [("a", "", "1"), ("b", "", "2")]),
        ({}, {"PGHOSTADDR": "10.0.0.1,::1"}, [("", "10.0.0.1", ""), ("", "::1", "")]),
        ({"port": "5"}, {"PGHOST": "a,b", "PGPORT": "1,2"}, [("a", "", "5"), ("b", "", "5")]),
        ({"host": "c"}, {"PGHOST": "a,b", "PGPORT": "1"}, [("c", "", "1")]),
        ({"service": "s"}, {"PGHOST": "a,b"}, [("", "", "")]),
        ({}, {"PGHOST": "a,b", "PGSERVICE": "s"}, [("", "", "")]),
    ],
)
def test_what_a_conninfo_leaves_out_the_environment_says(
    given: dict[str, object], environment: dict[str, str], hosts: list[tuple[str, str, str]]
) -> None:
    """As libpq does; a service file, which only libpq reads, comes before it."""
    assert list(hosts_of(with_environment(given, environment))) == hosts


def test_one_of_the_hosts_keeps_all_that_is_not_a_host() -> None:
    """User, database, TLS and the target stay."""
    given = {"host": "a,b", "port": "1,2", "user": "u", "target_session_attrs": "read-write"}
    assert only(given, Host("b", "", "2")) == {
        "host": "b", "port": "2", "user": "u", "target_session_attrs": "read-write",
    }  # fmt: skip


def test_the_others_come_first_after_a_bad_one() -> None:
    """All stay in the list, in their order."""
    assert last((A, B, C), A) == (B, C, A)
    assert last((A, B, C), C) == (A, B, C)
    assert last((A,), A) == (A,)
    assert first((A, B, C), C) == (C, A, B)


def test_a_silent_host_costs_its_timeout_once() -> None:
    """After those who answer, and not forgotten."""
    assert by_answer((A, B, C), {A}) == (B, C, A)
    assert by_answer((A, B, C), {A, B, C}) == (A, B, C)
    assert by_answer((A, B, C), set()) == (A, B, C)


@pytest.mark.parametrize(
    ("mine", "others", "newest", "left"),
    [
        (Standing(True, 1, True), [Standing(True, 2, False)], 0, True),
        (Standing(True, 2, True), [Standing(True, 1, False)], 0, False),
        (Standing(True, 1, True), [Standing(False, 2, False)], 0, False),
        (Standing(True, 1, True), [None, None], 0, False),
        (Standing(True, 1, True), [None, Standing(True, 3, True)], 0, True),
        (Standing(True, 1, True), [], 2, True),
        (Standing(True, 2, True), [], 2, False),
        (Standing(False, 9, True), [], 0, True),
    ],
)
def test_the_primary_of_the_newest_timeline_is_the_right_one(
    mine: Standing, others: list[Standing | None], newest: int, left: bool
) -> None:
    """A standby may know of a timeline and is no rival; what was seen once counts even when it is silent now."""
    assert is_left_behind(mine, others, newest) is left


def test_a_guard_that_goes_is_doubted_for_a_while() -> None:
    """It may be an orphan in its last moments, or a cluster that lost its standby: time tells."""
    guard = Guard()
    assert not guard.is_in_doubt(UP, 100)
    assert guard.is_in_doubt(DOWN, 101)
    assert guard.is_in_doubt(DOWN, 101 + DOUBT_S - 0.1)
    assert not guard.is_in_doubt(DOWN, 101 + DOUBT_S)
    assert not guard.is_in_doubt(DOWN, 102 + DOUBT_S), "from now on it is a cluster without a guard"


def test_who_keeps_the_lock_is_doubted_no_more() -> None:
    """Somebody else has told: nobody waits until the time is over, and a guard that comes back is one again."""
    guard = Guard()
    guard.is_in_doubt(UP, 0)
    assert guard.is_in_doubt(DOWN, 1)
    guard.end_doubt()
    assert not guard.is_in_doubt(DOWN, 2)
    assert not guard.is_in_doubt(UP, 3)
    assert guard.is_in_doubt(DOWN, 4)


def test_without_a_guard_from_the_start_there_is_no_doubt() -> None:
    """A site that asked for nothing waits for nothing."""
    guard = Guard()
    assert not guard.is_in_doubt(DOWN, 0)
    assert not guard.is_up
    assert not guard.is_in_doubt(UP, 1)
    assert guard.is_up


def test_a_guard_that_comes_back_ends_the_doubt() -> None:
    """And the next loss is doubted for its own time."""
    guard = Guard()
    guard.is_in_doubt(UP, 0)
    assert guard.is_in_doubt(DOWN, 1)
    assert not guard.is_in_doubt(UP, 2)
    assert guard.is_in_doubt(DOWN, 50)
    assert guard.is_in_doubt(DOWN, 50 + DOUBT_S - 1)


def test_who_was_promoted_is_not_doubted() -> None:
    """A new timeline begins without a standby; only what is lost there later counts. An orphan of the old one does."""
    guard = Guard()
    guard.is_in_doubt(UP, 0)
    assert not guard.is_in_doubt(Standing(True, 2, False), 1)
    assert not guard.is_in_doubt(Standing(True, 2, True), 2)
    assert guard.is_in_doubt(Standing(True, 2, False), 3)
    assert guard.is_in_doubt(DOWN, 4)
