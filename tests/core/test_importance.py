"""What goes first, and that the rest goes too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.config.kinds import importance
from ingest.core.delivery.importance import (
    CATALOG,
    FACTS,
    PASSED_MAX,
    REPORT,
    Importance,
    Turns,
)

OURS = importance()


@pytest.mark.parametrize(
    ("headers", "start", "rank"),
    [
        ({"command": "replace facts"}, b"", FACTS),
        ({"command": "replace_facts"}, b"{}", FACTS),
        ({"command": "store report"}, b'{"command":"replace facts"}', REPORT),  # what a header says is enough
        ({"command": "replace catalog"}, b"", CATALOG),
        ({"command": "deactivate node"}, b"", CATALOG),
        ({"command": "configure expiration"}, b"", CATALOG),
        ({"command": "replace catalog inputs"}, b"", CATALOG),
        ({"command": "what nobody knows"}, b"", CATALOG),
        ({}, b'{"command":"store report","version":8', REPORT),
        ({}, b'{"command": "replace facts", "version"', FACTS),
        ({}, b'{"command" : "store report", "version"', REPORT),
        ({}, b'{"command":"replace catalog"', CATALOG),
        ({}, b'{"name":"a.example"', REPORT),  # nothing tells: as its queue
        ({}, b"", REPORT),
    ],
)
def test_the_rank_of_a_message_that_nobody_has_parsed(
    headers: dict[str, str], start: bytes, rank: int
) -> None:
    """Told by a header, or where senders put the command; a queue may have messages of any kind."""
    assert OURS.of_message(headers, start, REPORT) == rank


def test_no_command_is_a_catalog() -> None:
    """Puppet's own body names none."""
    assert OURS.of_command(None) == OURS.of_command("") == CATALOG
    assert OURS.of_message({}, b"") == CATALOG


@pytest.mark.parametrize("told", ["keep note", "keep_note"])
def test_a_kind_says_its_rank(told: str) -> None:
    """However its command is written, and wherever it stands; nobody else's moves with it."""
    theirs = Importance({"keep note": REPORT})
    assert theirs.of_command(told) == REPORT
    assert theirs.of_message({"command": told}, b"", FACTS) == REPORT
    assert theirs.of_message({}, b'{"command":"%s"' % told.encode(), FACTS) == REPORT
    assert theirs.of_command("store report") == CATALOG


def test_catalogs_first_then_facts_then_reports() -> None:
    """Whatever waits of each."""
    assert Turns().order([True, True, True]) == [CATALOG, FACTS, REPORT]
    assert Turns().order([False, True, True]) == [FACTS, REPORT]
    assert Turns().order([False, False, True]) == [REPORT]
    assert Turns().order([False, False, False]) == []


def test_what_was_passed_often_enough_has_its_turn() -> None:
    """One report for sixteen catalogs; then it waits again."""
    turns, all_wait = Turns(), [True, False, True]
    taken = []
    for _ in range(2 * (PASSED_MAX + 1)):
        rank = turns.order(all_wait)[0]
        turns.took(rank, all_wait)
        taken.append(rank)
    assert taken == 2 * [*PASSED_MAX * [CATALOG], REPORT]


def test_nobody_is_owed_for_a_time_when_it_did_not_wait() -> None:
    """A report that comes after a thousand catalogs does not go before the next one."""
    turns = Turns()
    for _ in range(1000):
        turns.took(CATALOG, [True, False, False])
    assert turns.order([True, False, True]) == [CATALOG, REPORT]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=200))
def test_no_rank_waits_for_ever(waits: list[tuple[bool, bool, bool]]) -> None:
    """However the others come: between two turns of what waits all the time, so many of the others and no more."""
    turns = Turns()
    passed = [0, 0, 0]
    for given_ in waits:
        rank_waits = [given_[0], given_[1], True]  # a report always
        rank = turns.order(rank_waits)[0]
        turns.took(rank, rank_waits)
        passed[REPORT] = 0 if rank == REPORT else passed[REPORT] + 1
        # Facts that are owed too go first: that is one more.
        assert passed[REPORT] <= PASSED_MAX + 1
