"""Reports: what every version becomes, by which hash they are known, and what of them is shared."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core import pgcopy
from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.work import DIGEST_BYTES, Descriptor
from ingest.core.report.decoding import ReportDecoder
from ingest.core.report.identity import milliseconds, report_hash
from ingest.core.report.shared_content import containing_class, value_text
from ingest.core.report.work import StoreReport
from ingest.errors import Rejected

AT = datetime(2026, 11, 26, 12, tzinfo=UTC)
START = datetime(2026, 11, 22, 15, 44, 58, 238000, tzinfo=UTC)


def event(**more: Any) -> dict[str, Any]:
    return {
        "status": "success", "timestamp": "2026-11-22T15:45:00.648+00:00", "property": "ensure", "new_value": "present",
        "old_value": "absent", "message": "created", "name": "file_created", "corrective_change": False,
    } | more  # fmt: skip


def resource(title: str = "/x", *events: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "skipped": False, "timestamp": "2026-11-22T15:45:00.628+00:00", "resource_type": "File", "resource_title": title,
        "file": "/m.pp", "line": 10, "containment_path": ["Stage[main]", "Ntp::Install", f"File[{title}]"],
        "corrective_change": False, "events": list(events),
    } | more  # fmt: skip


def log(message: str = "Applied catalog in 1.00 seconds", **more: Any) -> dict[str, Any]:
    return {
        "file": None, "line": None, "level": "notice", "message": message, "source": "Puppet", "tags": ["notice"],
        "time": "2026-11-22T15:45:00.651+00:00",
    } | more  # fmt: skip


def report(**more: Any) -> dict[str, Any]:
    return {
        "certname": "a.example", "puppet_version": "7.23.0", "report_format": 12, "configuration_version": "1795360820",
        "producer_timestamp": "2026-11-22T15:45:01.568+00:00", "start_time": "2026-11-22T15:44:58.238+00:00",
        "end_time": "2026-11-22T15:44:58.238+00:00", "environment": "production", "status": "changed", "noop": False,
        "noop_pending": False, "corrective_change": False, "producer": "p.example", "job_id": None, "code_id": None,
        "transaction_uuid": "5b765417-04d9-4af0-a768-6ee96482aa0b", "cached_catalog_status": "not_used",
        "catalog_uuid": "45e93ff0-4a15-4575-8182-ecd4525e03da", "metrics": [], "logs": [], "resources": [],
    } | more  # fmt: skip


def decode(payload: Any, version: int = 8, headers: dict[str, str] | None = None) -> StoreReport:
    body = json.dumps({"command": "store report", "version": version, "payload": payload}).encode()
    return decode_bytes(body, headers)


def decode_bytes(body: bytes, headers: dict[str, str] | None = None) -> StoreReport:
    decoder = ReportDecoder(DecoderSettings(cache_bytes_max=1 << 20))
    (work,) = decoder.decode(
        Descriptor(1, 1, 0, len(body), len(body), AT, headers or {}), memoryview(body), {}
    )
    return work


def test_the_hash_is_puppetdbs() -> None:
    """As PuppetDB 7.12.1 answered for these."""
    known = report_hash(
        certname="hash-probe.example",
        puppet_version="7.23.0",
        report_format=12,
        configuration_version='é"x/ <y>',
        start_time=START,
        end_time=START,
        producer_timestamp=datetime(2026, 11, 22, 15, 45, 1, 568000, tzinfo=UTC),
        transaction_uuid="5b765417-04d9-4af0-a768-6ee96482aa0b",
    )
    assert known.hex() == "0e88426e1486002ba181a20c79692d1e83c8f25d"


said = (
    st.none()
    | st.text(max_size=5)
    | st.sampled_from(['"\\', "\x00\x1f\x7f\u2028", "\\u001f", "\ud800", "8.10"])
)


@given(said, said, said, st.none() | st.integers(-(2**31), 2**31 - 1))
def test_a_hash_is_of_compact_json(
    certname: str | None, puppet: str | None, uuid: str | None, format_: int | None
) -> None:
    """With its keys in order, whatever is in the texts; control characters in capitals."""
    given_ = {
        "certname": certname or "", "configuration_version": puppet, "puppet_version": puppet, "report_format": format_,
        "transaction_uuid": uuid,
    }  # fmt: skip
    moments = {"start_time": START, "end_time": AT, "producer_timestamp": AT}
    document = given_ | {name: milliseconds(at) for name, at in moments.items()}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    text = re.sub(r"\\u00[01][0-9a-f]", lambda match: "\\u" + match[0][2:].upper(), text)
    expected = hashlib.sha1(text.encode("utf-8", "replace")).digest()
    assert report_hash(**given_, **moments) == expected  # type: ignore[arg-type]


def test_the_same_report_has_the_same_hash_and_another_has_another() -> None:
    """By what PuppetDB takes into it; the time zone and what is finer than a millisecond are none of that."""
    first = decode(report()).header.hash
    assert decode(report(start_time="2026-11-22T16:44:58.238999+01:00")).header.hash == first
    assert decode(report(status="failed", resources=[resource("/y")])).header.hash == first
    for name, other in {
        "certname": "b.example", "puppet_version": "8", "report_format": 11, "configuration_version": "2",
        "start_time": "2026-11-22T15:44:58.239Z", "end_time": "2026-11-22T15:44:59Z",
        "producer_timestamp": "2026-11-22T15:45:02Z", "transaction_uuid": "5b765417-04d9-4af0-a768-6ee96482aa0c",
    }.items():  # fmt: skip
        assert decode(report(**{name: other})).header.hash != first, name


def dashed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.replace("_", "-"): dashed(item) for key, item in value.items()}
    return [dashed(item) for item in value] if isinstance(value, list) else value


def old(version: int) -> dict[str, Any]:
    """A report as that version had it, 3 to 7. Source: PuppetDB 7.12, ``puppetlabs.puppetdb.reports``."""
    document = report(resources=[resource("/x", event(), event(property="mode", message="mode changed")),
                                 resource("e", resource_type="Exec", skipped=True)], logs=[log()])  # fmt: skip
    for name in ("producer", "noop_pending", "corrective_change", "job_id"):
        del document[name]
    for one in document["resources"]:
        del one["corrective_change"]
        for each in one["events"]:
            del each["corrective_change"], each["name"]
    if version < 7:
        del document["catalog_uuid"], document["cached_catalog_status"], document["code_id"]
    if version < 6:
        document["resource_events"] = _flat(document.pop("resources"))
    if version < 5:
        del document["logs"], document["metrics"], document["noop"], document["producer_timestamp"]
        document = dashed(document)
    if version < 4:
        del document["status"]
    return document


def _flat(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each event with what its resource says; a skipped one is an event without anything."""
    nothing = {"status": "skipped", "property": None, "new_value": None, "old_value": None, "message": None}
    return [
        {k: v for k, v in one.items() if k not in ("events", "skipped")} | each
        for one in resources
        for each in (one["events"] or [nothing])
    ]


@pytest.mark.parametrize("version", [3, 4, 5, 6, 7])
def test_old_versions_become_the_newest(version: int) -> None:
    """Events gathered by resource, no logs and metrics where there were none, the catalog's uuid from the transaction."""
    work = decode(old(version), version)
    assert work.counts == (2, 0, 0, 1, 0)
    assert len(work.events.offsets) == 3
    assert (work.logs is None, work.metrics is None) == ((version < 5,) * 2)
    of_its_own = "45e93ff0-4a15-4575-8182-ecd4525e03da"
    assert work.header.catalog_uuid == (of_its_own if version == 7 else work.header.transaction_uuid)
    assert work.header.status == (None if version == 3 else "changed")
    assert work.producer_timestamp == (
        AT if version < 5 else datetime(2026, 11, 22, 15, 45, 1, 568000, tzinfo=UTC)
    )


@pytest.mark.parametrize("version", [3, 4, 5, 6, 7])
def test_what_a_version_does_not_have_is_null(version: int) -> None:
    """None before 8 has noop_pending, a corrective change, a producer, a job."""
    header = decode(old(version), version).header
    assert (header.noop_pending, header.corrective_change, header.producer, header.job_id) == (None,) * 4
    assert header.cached_catalog_status == ("not_used" if version == 7 else None)


def test_a_resource_skipped_at_two_times_is_two_events() -> None:
    """As PuppetDB gathers the events of old versions: by all that they say of their resource, and by their time."""
    document = old(5)
    skipped = document["resource_events"][-1]
    document["resource_events"] += [skipped, skipped | {"timestamp": "2026-11-22T15:45:09Z"}]
    assert decode(document, 5).counts == (2, 0, 0, 2, 0)


def test_a_log_that_repeats_an_events_message_refers_to_it() -> None:
    """And only to an event of the same report: another report's line is another content."""
    work = decode(
        report(resources=[resource("/x", event())], logs=[log("created"), log("other"), log("created")])
    )
    assert len(work.log_contents) == 2
    ((line, repeated),) = work.log_events.items()
    assert repeated in work.event_contents
    assert work.logs is not None
    assert work.logs.digests[:DIGEST_BYTES] == line == work.logs.digests[2 * DIGEST_BYTES :]
    alone = decode(report(logs=[log("created")]))
    assert alone.logs is not None
    assert alone.logs.digests != line


def test_what_repeats_from_run_to_run_is_the_same_content() -> None:
    """Everything but the times, which stand beside it in microseconds."""
    first = decode(report(resources=[resource("/x", event())], logs=[log()]))
    again = decode(
        report(
            start_time="2026-11-23T15:44:58.238+00:00",
            resources=[resource("/x", event(timestamp="2026-11-23T15:45:00.638123+00:00"))],
            logs=[log(time="2026-11-23T15:44:00+00:00")],
        )
    )
    assert again.events.digests == first.events.digests
    assert (first.events.offsets, again.events.offsets) == ((2_410_000,), (2_400_123,))
    assert first.logs is not None
    assert again.logs is not None
    assert again.logs.digests == first.logs.digests
    assert again.logs.offsets == (-58_238_000,)


@pytest.mark.parametrize(
    "change",
    [
        {"status": "failure"}, {"property": "mode"}, {"new_value": 1}, {"new_value": "1"}, {"new_value": True},
        {"old_value": None}, {"message": "Created"}, {"name": None}, {"corrective_change": True},
    ],
)  # fmt: skip
def test_events_that_differ_in_anything_are_other_content(change: dict[str, Any]) -> None:
    """Also 1 and true and "1"."""
    same = decode(report(resources=[resource("/x", event())])).events.digests
    assert decode(report(resources=[resource("/x", event(**change))])).events.digests != same


def test_events_are_counted_by_their_status() -> None:
    """A skipped resource is one event; corrective ones are counted apart."""
    work = decode(
        report(
            resources=[
                resource("/a", event(), event(status="failure", corrective_change=True)),
                resource("/b", event(status="noop")),
                resource("/c", skipped=True),
                resource("/d"),
            ]
        )
    )
    assert work.counts == (1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (None, None), ([], None), (["Stage[main]"], None), (["Stage[main]", "Ntp", "File[/x]"], "Ntp"),
        (["Stage[main]", "A", "B::C", "D[d]", "File[/x]"], "B::C"), (["A\0"], "A\ufffd"),
    ],
)  # fmt: skip
def test_the_containing_class_is_the_innermost(path: list[str] | None, found: str | None) -> None:
    """The last part of the path without a title."""
    assert containing_class(path) == found


@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 10**30, 1.5, "", "a\0b", "\ud800", [1, [None]], {"b": {"a": "é\0"}}]
)
def test_any_value_is_stored(value: Any) -> None:
    """As JSON that PostgreSQL takes; U+0000 is U+FFFD, as PuppetDB has it."""
    text = value_text(value)
    assert "\0" not in text
    assert "\\u0000" not in text
    text.encode()
    if value not in ("a\0b", "\ud800", {"b": {"a": "é\0"}}):
        assert json.loads(text) == value
    decode(report(resources=[resource("/x", event(new_value=value, old_value=value))]))


@pytest.mark.parametrize(
    "value", ["\\u0000", "a\\\\u0000", {"a": "\\u0000"}, ["\\ud800", "\\\\u0000"], '\t\x01\x7f"/\\']
)
def test_a_text_that_spells_an_escape_is_no_escape(value: Any) -> None:
    """What looks like U+0000 behind a backslash is six characters, and comes back as they are."""
    assert json.loads(value_text(value)) == value


@pytest.mark.parametrize(
    ("value", "shown"), [("a\0", "a\ufffd"), ("\\u0000", "\\u0000"), ({"é": [2**60]}, {"é": [2**60]})]
)
def test_a_metric_of_any_value_can_be_shown(value: Any, shown: Any) -> None:
    """What no double holds is kept as JSON that PostgreSQL takes."""
    metrics = decode(report(metrics=[{"category": "\\u0000", "name": "a", "value": value}])).metrics
    assert metrics is not None
    assert metrics.exact is not None
    assert json.loads(metrics.exact) == [shown]
    assert metrics.names is not None
    assert b"\\\\u0000" in metrics.names


def test_metrics_are_a_shape_and_numbers() -> None:
    """Values that are integers stay so by their shape; names that differ are another one."""
    values = [
        {"category": "time", "name": "total", "value": 1.5},
        {"category": "events", "name": "total", "value": 3},
    ]
    work, other = decode(report(metrics=values)).metrics, decode(report(metrics=values[:1])).metrics
    assert work is not None
    assert other is not None
    assert work.shape != other.shape
    assert work.values == pgcopy.float8_array_zeros_null([1.5, 3.0])
    assert work.exact is None
    whole = decode(report(metrics=[values[0] | {"value": 1}, values[1]])).metrics
    assert whole is not None
    assert whole.shape != work.shape


@pytest.mark.parametrize("value", [2**53 + 1, -(2**60), 10**400, None, "5", True, [1]])
def test_a_metric_that_no_double_holds_is_kept_as_it_is(value: Any) -> None:
    """Beside the others."""
    metrics = decode(report(metrics=[{"category": "a", "name": "b", "value": value}])).metrics
    assert metrics is not None
    assert json.loads(metrics.exact or "") == [value]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)))
def test_arrays_of_doubles_are_postgresqls(values: list[float]) -> None:
    """Each element behind its length, in network order."""
    field = pgcopy.float8_array(values)
    body = b"".join(struct.pack(">id", 8, value) for value in values)
    head = struct.pack(">iiiii", 1, 0, 701, len(values), 1) if values else struct.pack(">iii", 0, 0, 701)
    assert field == struct.pack(">i", len(head + body)) + head + body


@pytest.mark.parametrize("count", [255, 256, 257, 512, 700])
def test_long_arrays_are_as_short_ones(count: int) -> None:
    """They are made in blocks."""
    values = [number - 2**62 for number in range(count)]
    body = b"".join(struct.pack(">iq", 8, value) for value in values)
    head = struct.pack(">iiiii", 1, 0, 20, count, 1)
    assert pgcopy.int8_array(values) == struct.pack(">i", len(head + body)) + head + body


@given(
    st.lists(
        st.sampled_from([0, 0.0, -0.0, 4.24e-314, 2**-1022, 8, 1])
        | st.binary(min_size=8, max_size=8).map(lambda raw: struct.unpack(">d", raw)[0])
    )
)
def test_zeros_are_nulls_and_nothing_else_is(values: list[float]) -> None:
    """Whatever bytes the other doubles consist of."""
    field = pgcopy.float8_array_zeros_null(values)
    if not values:
        assert field == pgcopy.float8_array(())
        return
    elements = [struct.pack(">id", 8, value) for value in values]
    zero = struct.pack(">id", 8, 0.0)
    body = b"".join(pgcopy.NULL if element == zero else element for element in elements)
    head = struct.pack(">iiiii", 1, 1, 701, len(values), 1)
    assert field == struct.pack(">i", len(head + body)) + head + body


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"certname": None}, "names no node"), ({"start_time": None}, "no start_time"), ({"end_time": "soon"}, "end_time"),
        ({"transaction_uuid": "x"}, "transaction_uuid is not a UUID"), ({"type": "x"}, "type 'x'"),
        ({"resources": {}}, "Expected `array"), ({"logs": [1]}, "Expected `object"), ({"report_format": 2**40}, "report_format"),
        ({"resources": [{"resource_title": "x"}]}, "resource_type"), ({"certname": "a\0"}, "certname"),
        ({"resources": [resource("/x", event(timestamp="x"))]}, "timestamp of an event"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    """In words that name the member."""
    with pytest.raises(Rejected) as refused:
        decode(report(**change))
    assert said in refused.value.text


def test_a_report_of_a_plan_is_one() -> None:
    """The default is that of an agent."""
    assert decode(report(type="plan")).header.type == "plan"
    assert decode(report()).header.type == "agent"


def test_bytes_that_are_not_utf8_do_not_refuse_a_report() -> None:
    """A log may hold any program's output."""
    body = json.dumps({"command": "store report", "version": 8, "payload": report(logs=[log("XX")])}).encode()
    work = decode_bytes(body.replace(b"XX", b"\xff\xfe"))
    ((before, _),) = work.log_contents.values()
    assert "\ufffd".encode() in before


SECRETS = [
    '{"__ptype":"Sensitive","__pvalue":"hunter2"}',
    '[{"a":{"__ptype":"Sensitive","__pvalue":"hunter2"}}]',
    '{"__ptype":"Sensitive","__ptype":"Binary","__pvalue":"hunter2"}',
    r'{"\u005f_ptype":"Sen\u0073itive","__pvalue":"hunter2"}',
    json.dumps('{"__ptype":"Sensitive","__pvalue":"hunter2"}'),
    json.dumps("Deferred({'name' => 'new', 'arguments' => [Sensitive, 'hunter2']})"),
]


@pytest.mark.parametrize("version", [5, 8])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_taken_out(secret: str, version: int) -> None:
    """In every form that we know and wherever values and texts stand; what Puppet redacted it has redacted."""
    values = event(new_value="HERE", old_value=["HERE"], message="HERE" if secret[0] == '"' else "x")
    if version == 5:
        payload = report(resource_events=[values | {"resource_type": "File", "resource_title": "/x"}])
    else:
        payload = report(resources=[resource("/x", values)])
    payload["logs"] = [log("HERE" if secret[0] == '"' else "x")]
    body = json.dumps({"command": "store report", "version": version, "payload": payload})
    work = decode_bytes(body.replace('"HERE"', secret).encode())
    assert work.event_contents
    assert "hunter2" not in repr((work.event_contents, work.log_contents))


def test_a_time_that_is_not_believed_changes_no_hash() -> None:
    """The engine brings it to the time of arrival; links and clients know the report by what it said."""
    work = decode(report(producer_timestamp="2036-01-01T00:00:00Z"))
    moved = work.placed(AT)
    assert (moved.producer_timestamp, moved.header.hash) == (AT, work.header.hash)
    assert moved.header.said_at == datetime(2036, 1, 1, tzinfo=UTC)
    assert moved.placed(AT + timedelta(hours=1)).header.said_at == moved.header.said_at
