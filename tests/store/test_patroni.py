"""Who is asked whether a server has the lock of its cluster: Patroni, as it answers to everybody."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from ingest.store import patroni
from ingest.store.patroni import leads_alone
from lab.patroni import MEMBER, STARTED, Patroni
from lab.servers import free_port

STARTED_US = 1795833600000123


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Patroni]:
    made = Patroni()
    monkeypatch.setattr(patroni, "PORT", made.port)
    yield made
    made.close()


def test_the_leader_alone_is_known_by_when_its_server_started(here: Patroni) -> None:
    """The same Patroni says it of no other server, and of none that lives in a directory."""
    assert leads_alone("127.0.0.1", STARTED_US)
    assert not leads_alone("127.0.0.1", STARTED_US + 1)
    assert not leads_alone("/run/postgresql", STARTED_US)
    assert not leads_alone("", STARTED_US)


def test_a_replica_does_not_count(here: Patroni) -> None:
    """Nobody promotes it: it is not the one that is named with the lock."""
    here.members.append(MEMBER | {"name": "b", "role": "replica", "api_url": "http://127.0.0.1:1/patroni"})
    assert leads_alone("127.0.0.1", STARTED_US)


@pytest.mark.parametrize("role", ["sync_standby", "quorum_standby", "leader"])
def test_a_standby_that_may_be_promoted_leaves_the_doubt(here: Patroni, role: str) -> None:
    """And so would a second leader."""
    here.members.append(MEMBER | {"name": "b", "role": role, "api_url": "self"})
    assert not leads_alone("127.0.0.1", STARTED_US)


@pytest.mark.parametrize(
    "members",
    [
        [],
        [MEMBER | {"role": "replica", "api_url": "self"}],
        [MEMBER | {"role": "standby_leader", "api_url": "self"}],
        [MEMBER | {"role": "leader"}],
        [MEMBER | {"role": "leader", "api_url": 5}],
        [MEMBER | {"role": "leader", "api_url": "https://127.0.0.1:8008/patroni"}],
        [MEMBER | {"role": "leader", "api_url": "http://[/"}],
        [MEMBER | {"role": "leader", "api_url": "http://127.0.0.1:99999/"}],
        [MEMBER | {"role": None, "api_url": "self"}],
        [5],
        5,
    ],
    ids=str,
)
def test_a_cluster_without_this_leader_says_nothing(here: Patroni, members: Any) -> None:
    """Nobody has the lock, another kind of it, or the answer is none that Patroni gives."""
    here.members = members
    assert not leads_alone("127.0.0.1", STARTED_US)


@pytest.mark.parametrize(
    "primary",
    [
        (503, {"role": "master", "postmaster_start_time": STARTED}),
        (200, {"role": "master", "postmaster_start_time": "yesterday"}),
        (200, {"role": "master", "postmaster_start_time": "2026-11-28 02:40:00.000123"}),
        (200, {"role": "master", "postmaster_start_time": None}),
        (200, {}),
        (200, []),
    ],
    ids=str,
)
def test_a_leader_that_did_not_renew_its_lock_leaves_the_doubt(here: Patroni, primary: Any) -> None:
    """Or does not say when its server started."""
    here.primary = primary
    assert not leads_alone("127.0.0.1", STARTED_US)


def test_where_no_patroni_is_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at its port."""
    monkeypatch.setattr(patroni, "PORT", free_port())
    assert not leads_alone("127.0.0.1", STARTED_US)


def test_who_answers_by_and_by_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then, for ever: a writer waits for what is said here."""
    monkeypatch.setattr(patroni, "ANSWER_S", 0.2)
    ended = threading.Event()

    def trickle() -> None:
        opened, _ = listening.accept()
        with opened, suppress(OSError):
            opened.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not ended.wait(0.05):
                opened.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(patroni, "PORT", listening.getsockname()[1])
        thread = threading.Thread(target=trickle)
        thread.start()
        assert not leads_alone("127.0.0.1", STARTED_US)
        ended.set()
        thread.join()
