"""All kinds together: in any order, again, or to a writer that dies, what comes makes the database equal a model of few lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from ingest.core.delivery.work import Outcome
from ingest.errors import Unavailable
from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import collect_garbage, expire_nodes
from lab.facts import facts_body
from lab.store_model import LATE, Pipeline, at, resource, wire_body
from tests.core.test_report import event, log, report
from tests.core.test_report import resource as reported
from tests.store.test_state_machine import empty

# make test-store-long has more of them.
EXAMPLES = int(os.environ.get("INGEST_TEST_STORE_EXAMPLES", "12"))
MINUTES = 6
CERTNAMES = ("a.example.com", "b.example.com", "c.example.com")
WRITERS = (0, 1)


class Message(NamedTuple):
    """What it says follows from these: two of one node, kind and minute are one."""

    kind: str
    certname: str
    minute: int

    @property
    def body(self) -> bytes:
        return BODIES[self.kind](self.certname, self.minute)


def facts(minute: int) -> dict[str, Any]:
    """A leaf that always moves, some that do at times, and a shape that does now and then."""
    return {"uptime": minute, "os": {"release": minute // 2}, **({"cloud": [minute]} if minute % 3 else {})}


def packages(minute: int) -> list[list[str]]:
    return [["bash", str(minute // 3), "apt"], ["zsh", "5", "apt"]][: 1 + minute % 2]


def store_report(certname: str, minute: int) -> bytes:
    when = at(minute).isoformat()
    # Most events and lines are those of other reports.
    made = report(
        certname=certname, producer_timestamp=when, start_time=when, end_time=when, status=f"s{minute}",
        resources=[reported("/x", event(message=f"m{minute // 2}"))], logs=[log(f"m{minute // 2}"), log(f"l{minute // 3}")],
    )  # fmt: skip
    return json.dumps({"command": "store report", "version": 8, "payload": made}).encode()


def command(name: str, version: int, **payload: Any) -> Callable[[str, int], bytes]:
    def body(certname: str, minute: int) -> bytes:
        more = {key: value(minute) for key, value in payload.items()}
        head = {"certname": certname, "producer_timestamp": at(minute).isoformat()}
        return json.dumps({"command": name, "version": version, "payload": head | more}).encode()

    return body


def inputs(minute: int) -> list[list[str]]:
    return [["hiera", f"k{minute // 2}"], ["hiera", "same"]]


def expires(minute: int) -> bool:
    return minute % 2 == 0


BODIES: dict[str, Callable[[str, int], bytes]] = {
    "catalog": lambda certname, minute: wire_body(
        certname, minute, [resource(f"/{minute // 2}"), resource("/x")]
    ),
    "facts": lambda certname, minute: facts_body(certname, minute, facts(minute), packages(minute)),
    "report": store_report,
    "inputs": command("replace catalog inputs", 1, inputs=inputs, catalog_uuid=lambda _: None),
    "expiration": command("configure expiration", 1, expire=lambda minute: {"facts": expires(minute)}),
    "deactivate": command("deactivate node", 3),
}
messages = st.builds(
    Message, st.sampled_from(sorted(BODIES)), st.sampled_from(CERTNAMES), st.integers(0, MINUTES)
)

# Ends the session in the middle of a batch, where a trigger is told to: as a writer that is killed.
KILLER = """
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('test.dies', true) = 'yes' THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
        PERFORM pg_sleep(0);
    END IF;
    RETURN NULL;
END $$;
"""
DIES_AT = ("catalogs", "node_facts", "node_latest_reports", "node_inputs", "node_expirations", "nodes")


class Model:
    """The newest of each kind by node, and all reports."""

    def __init__(self) -> None:
        self.newest: dict[tuple[str, str], int] = {}  # (certname, kind)
        self.reports: set[tuple[str, int]] = set()
        self.expired: set[str] = set()

    def take(self, message: Message) -> None:
        kind, certname, minute = message
        before = self.newest.get((certname, kind), -1)
        is_new = (certname, minute) not in self.reports if kind == "report" else minute >= before
        self.newest[certname, kind] = max(minute, before)
        if kind == "report":
            self.reports.add((certname, minute))
        if kind != "deactivate" and is_new:
            self.expired.discard(certname)

    def of(self, kind: str) -> dict[str, int]:
        return {certname: minute for (certname, its), minute in self.newest.items() if its == kind}

    def deactivated(self) -> dict[str, int]:
        """Whoever has nothing newer than the deactivation."""
        return {
            certname: minute
            for certname, minute in self.of("deactivate").items()
            if all(minute >= its for (name, _), its in self.newest.items() if name == certname)
        }

    def silent(self) -> list[str]:
        """Whoever may expire and has something to be heard of by."""
        heard = {certname for certname, kind in self.newest if kind not in ("deactivate", "expiration")}
        kept = {certname for certname, minute in self.of("expiration").items() if not expires(minute)}
        return sorted(heard - kept - self.deactivated().keys() - self.expired)


class Kinds(RuleBasedStateMachine):
    """Two writers with caches of their own, and one database."""

    conninfo: ClassVar[str]
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.connection = connect(self.conninfo)
        empty(self.connection)
        self.connection.execute("TRUNCATE node_reports, node_facts, node_own_facts, node_packages")
        self.writers = [Pipeline(connect(self.conninfo)) for _ in WRITERS]
        self.model = Model()
        self.unsettled: list[Message] = []

    def teardown(self) -> None:
        self._take(0, self.unsettled)
        self.everything_is_the_newest()
        for opened in (self.connection, *(writer.lane.connection for writer in self.writers)):
            opened.close()

    @rule(target=sent, writer=st.sampled_from(WRITERS), batch=st.lists(messages, min_size=1, max_size=6))
    def take(self, writer: int, batch: list[Message]) -> Any:
        self._take(writer, batch)
        return multiple(*batch)

    @rule(
        target=sent,
        writer=st.sampled_from(WRITERS),
        certname=st.sampled_from(CERTNAMES),
        minute=st.integers(0, MINUTES),
    )
    def run(self, writer: int, certname: str, minute: int) -> Any:
        """As an agent sends it."""
        batch = [Message(kind, certname, minute) for kind in ("facts", "catalog", "inputs", "report")]
        self._take(writer, batch)
        return multiple(*batch)

    @rule(writer=st.sampled_from(WRITERS), batch=st.lists(sent, min_size=1, max_size=5))
    def take_again(self, writer: int, batch: list[Message]) -> None:
        """Redelivered, to the same writer or to the other one, in another order."""
        self._take(writer, batch)

    @rule(
        target=sent,
        writer=st.sampled_from(WRITERS),
        batch=st.lists(messages, min_size=1, max_size=6),
        table=st.sampled_from(DIES_AT),
    )
    def die(self, writer: int, batch: list[Message], table: str) -> Any:
        """Where the batch would write that table. All of it is given out again, some time later, or none of it is missing."""
        pipeline = self.writers[writer]
        self._arm(table)
        pipeline.lane.connection.execute("SET test.dies TO 'yes'")
        try:
            outcomes = pipeline.take(*(message.body for message in batch), received_at=LATE)
        except Unavailable:
            pipeline.lane.connection.close()
            self.writers[writer] = Pipeline(connect(self.conninfo))
            self.unsettled += batch
        else:
            assert Outcome.REDO not in outcomes
            pipeline.lane.connection.execute("SET test.dies TO 'no'")
            for message in batch:
                self.model.take(message)
        return multiple(*batch)

    @rule(writer=st.sampled_from(WRITERS), data=st.data())
    def give_out_again(self, writer: int, data: st.DataObject) -> None:
        batch = data.draw(st.permutations(self.unsettled))
        self.unsettled = []
        self._take(writer, batch)

    @rule()
    def expire(self) -> None:
        """Whoever is silent: of the time of these tests all have been."""
        wanted = self.model.silent()
        assert expire_nodes(self.connection, datetime.now(UTC) - LATE - timedelta(days=1)) == wanted
        self.model.expired.update(wanted)

    @rule()
    def collect(self) -> None:
        assert collect_garbage(self.connection, pause=lambda s: None).postponed == 0

    @invariant()
    def everything_is_the_newest(self) -> None:
        model = self.model
        assert self._rows("SELECT certname, version FROM catalogs JOIN nodes ON id = node_id") == {
            (certname, str(minute)) for certname, minute in model.of("catalog").items()
        }
        found = self.connection.execute("SELECT certname, facts FROM node_factsets").fetchall()
        assert dict(found) == {certname: facts(minute) for certname, minute in model.of("facts").items()}  # type: ignore[arg-type]
        assert self._rows("SELECT certname, package_name, version, provider FROM node_package_versions") == {
            (certname, *one) for certname, minute in model.of("facts").items() for one in packages(minute)
        }
        assert self._rows("SELECT certname, type, name FROM catalog_inputs") == {
            (certname, *one) for certname, minute in model.of("inputs").items() for one in inputs(minute)
        }
        assert self._rows("SELECT certname, expires FROM node_expirations JOIN nodes ON id = node_id") == {
            (certname, expires(minute)) for certname, minute in model.of("expiration").items()
        }

    @invariant()
    def every_report_is_there_once(self) -> None:
        model = self.model
        found = self.connection.execute("SELECT certname, status FROM reports ORDER BY 1, 2").fetchall()
        assert found == sorted((certname, f"s{minute}") for certname, minute in model.reports)
        assert self._rows("SELECT certname, status FROM latest_reports") == {
            (certname, f"s{minute}") for certname, minute in model.of("report").items()
        }
        told = self.connection.execute(
            "SELECT certname, message FROM resource_events ORDER BY 1, 2"
        ).fetchall()
        assert told == sorted((certname, f"m{minute // 2}") for certname, minute in model.reports)
        lines = self.connection.execute("SELECT certname, message FROM report_logs ORDER BY 1, 2").fetchall()
        assert lines == sorted(
            (certname, line)
            for certname, minute in model.reports
            for line in (f"m{minute // 2}", f"l{minute // 3}")
        )

    @invariant()
    def who_is_gone_is_seen_nowhere(self) -> None:
        model = self.model
        gone = model.deactivated()
        assert self._rows("SELECT certname, deactivated FROM nodes WHERE deactivated IS NOT NULL") == {
            (certname, at(minute)) for certname, minute in gone.items()
        }
        assert self._rows("SELECT certname FROM nodes WHERE expired IS NOT NULL") == {
            (certname,) for certname in model.expired
        }
        active = {(certname,) for certname in model.of("facts") if certname not in {*gone, *model.expired}}
        assert self._rows("SELECT certname FROM facts") == active
        assert self._rows("SELECT certname FROM inventory") == active

    def _take(self, writer: int, batch: Sequence[Message]) -> None:
        if batch:
            outcomes = self.writers[writer].take(*(message.body for message in batch), received_at=LATE)
            assert {Outcome.REDO, Outcome.QUARANTINED}.isdisjoint(outcomes)
        for message in batch:
            self.model.take(message)

    def _arm(self, table: str) -> None:
        for each in DIES_AT:
            self.connection.execute(f"DROP TRIGGER IF EXISTS dies ON {each}")  # type: ignore[arg-type]
        self.connection.execute(
            f"CREATE TRIGGER dies AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION die()"  # type: ignore[arg-type]
        )

    def _rows(self, statement: str) -> set[tuple[Any, ...]]:
        return set(self.connection.execute(statement).fetchall())  # type: ignore[call-overload]


@pytest.fixture
def machine(database: str, connection: Connection) -> type[Kinds]:
    connection.execute(KILLER)
    return type("Machine", (Kinds,), {"conninfo": database})


def test_all_kinds_equal_the_model_after_every_step(machine: type[Kinds]) -> None:
    """Facts, catalogs, inputs, reports, deactivations, settings of expiry; two writers, killed at any table; nodes expire."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # as for catalogs alone
            print_blob=True,
            database=None,
        ),
    )
