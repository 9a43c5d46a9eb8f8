"""A decoder that met a report's events and lines before makes of it what one makes that met nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.routing import lane_of
from ingest.core.delivery.work import DIGEST_BYTES, Descriptor
from ingest.core.report.decoding import ReportDecoder
from ingest.core.report.work import Parts, StoreReport
from ingest.errors import Rejected
from lab.decoding import work_of
from tests.core.test_report import AT, event, log, report, resource

LANES = 2
SETTINGS = DecoderSettings(cache_bytes_max=1 << 20, seed=0x5EED_5EED_5EED_5EED, lanes=LANES)
TIME = "2026-11-22T15:45:07.5+01:00"
NAMES = ("a.example", "d.example", "b.example", "c.example")  # of nodes of two writers
WITHIN = '"timestamp":"2026-11-22T15:45:09Z","time":"2026-11-22T15:45:09Z"'  # where it is the time of nothing


def decode(decoder: ReportDecoder, body: bytes, *, complete: bool = False) -> StoreReport | str:
    descriptor = Descriptor(1, 1, 0, len(body), len(body), AT, {}, complete=complete)
    try:
        work = decoder.at_once(descriptor, memoryview(body))
        return work or work_of(decoder, descriptor, body, {})
    except Rejected as rejected:
        return f"{rejected.reason}: {rejected.text}"


def body_of(*, spaces: bool = False, **more: Any) -> bytes:
    separators = None if spaces else (",", ":")
    return json.dumps(
        {"command": "store report", "version": 8, "payload": report(**more)},
        separators=separators,
        ensure_ascii=False,
    ).encode()


def digests(parts: Parts | None) -> list[bytes]:
    all_ = b"" if parts is None else parts.digests
    return [all_[at : at + DIGEST_BYTES] for at in range(0, len(all_), DIGEST_BYTES)]


class Lane:
    """What a writer was given."""

    def __init__(self) -> None:
        self.events: dict[bytes, bytes] = {}
        self.logs: dict[bytes, tuple[tuple[bytes, bytes], bytes | None]] = {}
        self.shapes: dict[bytes, bytes] = {}

    def take(self, work: StoreReport) -> None:
        self.events |= work.event_contents
        self.logs |= {digest: (its, work.log_events.get(digest)) for digest, its in work.log_contents.items()}
        if work.metrics is not None and work.metrics.names is not None:
            self.shapes[work.metrics.shape] = work.metrics.names

    def of(self, work: StoreReport) -> tuple[Any, ...]:
        """The report with all that it refers to."""
        return (
            work.header,
            work.counts,
            work.events,
            work.logs,
            [self.events[digest] for digest in digests(work.events)],
            [self.logs[digest] for digest in digests(work.logs)],
            None if work.metrics is None else (self.shapes[work.metrics.shape], work.metrics.values),
        )


def require_same(bodies: list[bytes]) -> list[StoreReport | str]:
    warm = ReportDecoder(SETTINGS)
    lanes = [Lane() for _ in range(LANES)]
    found = []
    for body in bodies:
        work, expected = decode(warm, body), decode(ReportDecoder(SETTINGS), body, complete=True)
        if isinstance(expected, str):
            assert work == expected
        else:
            assert isinstance(work, StoreReport)
            lane, alone = lanes[lane_of(work.certname, LANES)], Lane()
            lane.take(work)
            alone.take(expected)
            assert lane.of(work) == alone.of(expected)
        found.append(work)
    return found


def test_what_was_met_before_is_not_sent_again() -> None:
    """But to each writer once; and times are each report's own."""
    assert len({lane_of(name, LANES) for name in NAMES}) == LANES
    bodies = [
        body_of(
            certname=name,
            resources=[
                resource("/x", event(timestamp=f"2026-11-22T15:45:0{second}Z", message="made")),
                resource("/y", event(timestamp=f"2026-11-22T15:45:1{second}Z"), skipped=True),
            ],
            logs=[log("made", time=f"2026-11-22T15:46:0{second}Z"), log("said")],
            metrics=[{"category": "time", "name": "total", "value": 1.5}],
        )
        for second, name in enumerate(NAMES)
    ]
    met: set[int] = set()
    for body, work in zip(bodies, require_same(bodies), strict=True):
        assert isinstance(work, StoreReport), body
        is_known = lane_of(work.certname, LANES) in met
        assert (not work.event_contents, not work.log_contents) == (is_known, is_known)
        assert work.metrics is not None
        assert (work.metrics.names is None) == is_known
        met.add(lane_of(work.certname, LANES))
    assert len({work.events.offsets for work in require_same(bodies) if isinstance(work, StoreReport)}) == 4


def test_a_line_belongs_to_the_event_of_its_own_report() -> None:
    made, other = (
        body_of(resources=[resource(title, event(message="made"))], logs=[log("made")]) for title in "xy"
    )
    alone, elsewhere = (body_of(certname=name, logs=[log("made")]) for name in NAMES[:2])
    require_same([made, elsewhere, alone])
    works = require_same([made, other, alone, made, alone])
    assert len({digests(work.logs)[0] for work in works if isinstance(work, StoreReport)}) == 3


def test_everything_comes_when_it_is_asked_for() -> None:
    decoder = ReportDecoder(SETTINGS)
    body = body_of(resources=[resource("/x", event())], logs=[log()], metrics=[])
    first, second = decode(decoder, body), decode(decoder, body)
    assert isinstance(first, StoreReport)
    assert isinstance(second, StoreReport)
    assert not second.event_contents
    again = decode(decoder, body, complete=True)
    assert isinstance(again, StoreReport)
    assert again.is_complete
    assert (again.event_contents, again.log_contents) == (first.event_contents, first.log_contents)


# In what is said, where a time stands that is none of ours; doubled, written otherwise, or missing.
values = st.sampled_from(
    [
        None,
        1,
        "",
        "present",
        TIME,
        WITHIN,
        {"timestamp": TIME, "time": TIME},
        [{"timestamp": TIME}],
        "\U0001f600\u00e9",
    ]
)
times = st.sampled_from(
    [TIME, "2026-11-22T15:45:00Z", "2026-11-22T15:45:00", "2026-11-22 15:45:00", 1795360820123, None, "soon", "",
     "2026-11-22T25:45:00Z", "2026-02-30T15:45:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"]
)  # fmt: skip
events = st.builds(
    event, timestamp=times, new_value=values, old_value=values, message=st.sampled_from([None, "", "made", WITHIN]),
    status=st.sampled_from(["success", "failure", "noop", "skipped", "audit"]), corrective_change=st.booleans(),
)  # fmt: skip
resources = st.builds(
    lambda title, events, **more: resource(title, *events, **more),
    st.sampled_from(["/x", WITHIN, "é"]),
    st.lists(events, max_size=3),
    timestamp=times,
    skipped=st.booleans(),
    more=values,
)
logs = st.builds(
    log,
    st.sampled_from(["made", "said", WITHIN, None, 7]),
    time=times,
    source=st.sampled_from(["Puppet", WITHIN]),
)
# Done to a document's text: the last of two members counts, a name may be written in another way.
injuries = st.sampled_from(
    [
        (b'"status"', b'"timestamp":"2026-11-22T15:45:03Z","status"'),
        (b'"timestamp"', b'"timestam\\u0070"'),
        (b'"timestamp":', b'"timestamp" : '),
        (b'"time"', b'"tim\\u0065"'),
        (b'"level"', b'"time":"2026-11-22T15:45:03Z","level"'),
        (b"made", b"m\xffde"),
        (b'"resources":[', b'"resources":[{"timestamp":"2026-11-22T15:45:03Z"},'),
        (b'"logs":[', b'"logs":[null,'),
        (b"", b""),
    ]
)
bodies = st.builds(
    lambda resources, logs, spaces, injury: body_of(spaces=spaces, resources=resources, logs=logs).replace(
        *injury, 1
    ),
    st.lists(resources, max_size=3),
    st.lists(logs, max_size=3),
    st.booleans(),
    injuries,
)


@given(st.lists(bodies, min_size=2, max_size=4))
@example(
    [
        body_of(resources=[resource("/x", event(new_value={"timestamp": one}))])
        for one in (TIME, "2026-11-22T15:45:09Z")
    ]
)
@example(
    [
        body_of(logs=[log("made", more={"time": one}), log("said", time=one)])
        for one in (TIME, "2026-11-22T15:45:09Z")
    ]
)
def test_warm_and_cold_agree(bodies: list[bytes]) -> None:
    require_same(bodies)
