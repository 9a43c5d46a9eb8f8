"""Of every version of every command what was sent is what is stored; what a version does not have is null, nothing made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

import pytest

from ingest.config.kinds import KINDS
from ingest.core.delivery.work import Outcome
from ingest.store.connection import Connection
from lab.store_model import LATE, Pipeline, at
from tests.core.test_report import event, log, old, report, resource

NODE = "n.example.com"
WHEN = at(7)
UUID = "45e93ff0-4a15-4575-8182-ecd4525e03da"
VALUES: dict[str, Any] = {
    "numbers": [0, -1, 1.5, 1e22, 10**40], "flags": {"yes": True, "no": False, "none": None}, "empty": [{}, [], ""],
    "ünï 🙂": {"a.b": {'"q"': "é"}}, "deep": [[[[{"a": [1]}]]]],
}  # fmt: skip
PACKAGES = [["bash", "5.2", "apt"], ["rake", "13", "gem"]]


class Version(NamedTuple):
    """A command in that version, and what must be answered for it."""

    command: str
    version: int
    payload: Any
    answers: dict[str, Any]  # by the statement that asks

    @property
    def body(self) -> bytes:
        return json.dumps(
            {"command": self.command, "version": self.version, "payload": self.payload}
        ).encode()


def facts(version: int) -> Version:
    time = "producer-timestamp" if version == 3 else "producer_timestamp"
    head = {"name": NODE} if version < 4 else {"certname": NODE}
    payload = head | {"environment": "production", "values": VALUES}
    if version > 2:
        payload[time] = WHEN.isoformat()
    if version > 4:
        payload |= {"producer": "p.example.com", "package_inventory": PACKAGES}
    return Version("replace facts", version, payload, {
        "SELECT certname, environment, producer, producer_timestamp FROM node_factsets":
            [(NODE, "production", "p.example.com" if version > 4 else None, WHEN if version > 2 else LATE)],
        "SELECT facts FROM node_factsets": [(VALUES,)],
        "SELECT package_name, version, provider FROM node_package_versions ORDER BY 1":
            [tuple(one) for one in PACKAGES] if version > 4 else [],
    })  # fmt: skip


def of_report(version: int) -> Version:
    if version == 8:
        payload = report(
            resources=[
                resource("/x", event(), event(property="mode", message="mode changed")),
                resource("e", resource_type="Exec", skipped=True),
            ],
            logs=[log()],
        )
    else:
        payload = old(version)
    payload["certname"] = NODE
    at_8, at_7, at_5 = version == 8, version >= 7, version >= 5
    uuid, transaction = UUID, "5b765417-04d9-4af0-a768-6ee96482aa0b"
    said = datetime.fromisoformat("2026-11-22T15:45:01.568+00:00")
    where = ("/m.pp", 10, ["Stage[main]", "Ntp::Install", "File[/x]"], "Ntp::Install")
    done = ("present", "absent")
    return Version("store report", version, payload, {
        "SELECT certname, puppet_version, report_format, configuration_version, environment FROM reports":
            [(NODE, "7.23.0", 12, "1795360820", "production")],
        "SELECT status, noop, noop_pending, corrective_change, producer, job_id, cached_catalog_status, code_id FROM reports":
            [("changed" if version > 3 else None, False if at_5 else None, False if at_8 else None, False if at_8 else None,
              "p.example" if at_8 else None, None, "not_used" if at_7 else None, None)],
        "SELECT transaction_uuid::text, catalog_uuid::text, type FROM reports":
            [(transaction, uuid if at_7 else transaction, "agent")],
        "SELECT producer_timestamp, start_time, end_time FROM reports":
            [(said if at_5 else LATE, *[datetime.fromisoformat("2026-11-22T15:44:58.238+00:00")] * 2)],
        "SELECT status, resource_title, property, new_value, old_value, message, name, file, line, containment_path,"
        " containing_class, corrective_change, (timestamp - run_start_time)::text FROM resource_events ORDER BY place": [
            ("success", "/x", "ensure", *done, "created", "file_created" if at_8 else None, *where,
             False if at_8 else None, "00:00:02.41"),
            ("success", "/x", "mode", *done, "mode changed", "file_created" if at_8 else None, *where,
             False if at_8 else None, "00:00:02.41"),
            ("skipped", "e", None, None, None, None, None, "/m.pp", 10, ["Stage[main]", "Ntp::Install", "File[e]"],
             "Ntp::Install", False if at_8 else None, "00:00:02.39"),
        ],
        "SELECT level, message, source, tags FROM report_logs":
            [("notice", "Applied catalog in 1.00 seconds", "Puppet", ["notice"])] if at_5 else [],
    })  # fmt: skip


def deactivation(version: int) -> Version:
    payload: Any = {
        1: json.dumps(NODE),
        2: NODE,
        3: {"certname": NODE, "producer_timestamp": WHEN.isoformat()},
    }
    when = WHEN if version == 3 else LATE
    return Version(
        "deactivate node",
        version,
        payload[version],
        {"SELECT certname, deactivated FROM nodes": [(NODE, when)]},
    )


def inputs(version: int) -> Version:
    pairs = [["hiera", "a::b"], ["hiera", "ünï"], ["other", ""]]
    payload = {
        "certname": NODE,
        "producer_timestamp": WHEN.isoformat(),
        "catalog_uuid": UUID,
        "inputs": pairs,
    }
    asked = "SELECT certname, producer_timestamp, catalog_uuid::text, type, name FROM catalog_inputs ORDER BY 4, 5"
    return Version(
        "replace catalog inputs", version, payload, {asked: [(NODE, WHEN, UUID, *pair) for pair in pairs]}
    )


def expiration(version: int) -> Version:
    payload = {"certname": NODE, "producer_timestamp": WHEN.isoformat(), "expire": {"facts": False}}
    asked = "SELECT certname, expires, producer_timestamp FROM node_expirations JOIN nodes ON id = node_id"
    return Version("configure expiration", version, payload, {asked: [(NODE, False, WHEN)]})


MAKE: dict[str, Callable[[int], Version]] = {
    "replace facts": facts,
    "store report": of_report,
    "deactivate node": deactivation,
    "replace catalog inputs": inputs,
    "configure expiration": expiration,
}
# Catalogs have tests of their own: tests/core/test_formats.py, tests/store/test_reading.py.
ALL = [
    (command, version)
    for kind in KINDS
    for command, versions in kind.commands.items()
    if command != "replace catalog"
    for version in versions
]


def test_every_version_is_here() -> None:
    """Which there are is said by the kinds themselves."""
    assert {command for command, _ in ALL} == MAKE.keys()
    assert len(ALL) == 4 + 6 + 3 + 1 + 1


@pytest.mark.parametrize(("command", "version"), ALL)
def test_what_is_sent_is_stored(connection: Connection, command: str, version: int) -> None:
    """Whatever a view answers of it; and the same message once more changes nothing."""
    sent = MAKE[command](version)
    pipeline = Pipeline(connection)
    assert pipeline.take(sent.body) == [Outcome.STORED]
    for _ in range(2):
        for statement, answer in sent.answers.items():
            assert connection.execute(statement.encode()).fetchall() == answer, statement
        pipeline.take(sent.body)


@pytest.mark.parametrize("command", MAKE)
def test_a_version_that_is_not_known_is_refused(connection: Connection, command: str) -> None:
    """Older or newer than any that there is: by name, and nothing is stored."""
    from ingest.errors import Rejected

    versions = [version for name, version in ALL if name == command]
    for version in (min(versions) - 1, max(versions) + 1, 1000):
        body = MAKE[command](max(versions))._replace(version=version).body
        with pytest.raises(Rejected) as refused:
            Pipeline(connection).take(body)
        assert refused.value.reason == "unsupported_version"
        assert str(version) in refused.value.text
