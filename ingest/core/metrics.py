"""The one list of what is measured, each with a line on how to read it.

A member of ``Metric`` is its place in the list; ``Metric.RECEIVED.declared`` is what stands there.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

import msgspec

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LAGS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0)
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


class Declared(msgspec.Struct, frozen=True):
    """One metric. ``stage`` is the kind of process that has it, ``read`` what a value tells a person."""

    name: str
    kind: str  # "counter" | "gauge" | "histogram"
    stage: str
    help: str
    read: str
    outcome: str | None = None  # the label, for those that differ only in it
    buckets: tuple[float, ...] = ()
    label: str = "outcome"  # or what else it is


def _counter(stage: str, name: str, help_: str, read: str) -> Declared:
    return Declared(f"ingest_{name}_total", "counter", stage, help_, read)


def _gauge(stage: str, name: str, help_: str, read: str) -> Declared:
    return Declared(f"ingest_{name}", "gauge", stage, help_, read)


def _histogram(stage: str, name: str, help_: str, read: str, buckets: tuple[float, ...]) -> Declared:
    return Declared(f"ingest_{name}", "histogram", stage, help_, read, None, buckets)


def _outcome(outcome: str, read: str) -> Declared:
    help_ = "Messages settled, by outcome."
    return Declared("ingest_settled_total", "counter", "receiver", help_, read, outcome)


def _settle_seconds(message: str, read: str) -> Declared:
    name, help_ = "ingest_settle_seconds", "From receipt to settled, by kind of message."
    return Declared(name, "histogram", "receiver", help_, read, message, SECONDS, "kind")


def _of_kind(stage: str, kind: str, name: str, help_: str, read: str) -> Declared:
    return Declared(f"ingest_{name}", "gauge", stage, help_, read, kind, (), "kind")


def _unsettled(kind: str, read: str) -> Declared:
    return _of_kind("receiver", kind, "kind_unsettled", "Unsettled messages, by kind of message.", read)


def _age(kind: str, read: str) -> Declared:
    help_ = "Age of the oldest unsettled message, by kind of message."
    return _of_kind("receiver", kind, "kind_oldest_seconds", help_, read)


def _kind_lag(kind: str, read: str) -> Declared:
    help_ = "From the producer_timestamp to the commit, the largest of the last batch, by kind of message."
    return _of_kind("writer", kind, "kind_lag_seconds", help_, read)


class Metric(IntEnum):
    """What is measured, in the order in which it is shown: the way of a message."""

    declared: Declared

    def __new__(cls, declared: Declared) -> Metric:
        metric = int.__new__(cls, len(cls.__members__))
        metric._value_ = len(cls.__members__)
        metric.declared = declared
        return metric

    RECEIVED = _counter("receiver", "received", "Messages received.", "its rate is the load")
    RECEIVED_BYTES = _counter(
        "receiver", "received_bytes", "Bytes of bodies received.", "divide by received: the mean size"
    )
    REDELIVERED = _counter(
        "receiver",
        "redelivered",
        "Messages that the broker marked as redelivered.",
        "grows after reconnects and restarts; steadily: something acknowledges too late",
    )
    ACKNOWLEDGED = _counter(
        "receiver",
        "acknowledged",
        "Acknowledgements sent.",
        "lags behind settled only while the broker is away",
    )
    STORED = _outcome("stored", "catalogs with new content")
    UNCHANGED = _outcome("unchanged", "usually nine of ten")
    STALE = _outcome("stale", "older than what is stored: harmless, frequent only after an outage")
    SUPERSEDED = _outcome("superseded", "a newer one stood in the same batch: the engine was behind")
    QUARANTINED = _outcome("quarantined", "any: look with 'ingest quarantine list'")
    REDONE = _counter(
        "receiver",
        "redone",
        "Deliveries decoded once more with every content.",
        "rare; steadily: decoders and database disagree about what is known",
    )
    SETTLE_SECONDS = _settle_seconds(
        "catalog", "with all that comes on their queue, what others' compiles wait for"
    )
    SETTLE_FACTS = _settle_seconds("facts", "behind catalogs")
    SETTLE_REPORT = _settle_seconds("report", "the last: long while there is much to do")
    WINDOW_MESSAGES = _gauge(
        "receiver",
        "window_messages",
        "Unsettled messages.",
        "at window_messages_max the broker holds the rest back",
    )
    WINDOW_BYTES = _gauge(
        "receiver",
        "window_bytes",
        "Shared memory used by unsettled bodies.",
        "at window_bytes_max reading stops",
    )
    WINDOW_MESSAGES_LIMIT = _gauge(
        "receiver",
        "window_messages_limit",
        "Unsettled messages that it takes at most.",
        "window_messages_max",
    )
    WINDOW_BYTES_LIMIT = _gauge(
        "receiver", "window_bytes_limit", "Shared memory that there is for bodies.", "window_bytes_max"
    )
    WAITING = _gauge(
        "receiver",
        "waiting",
        "Messages that no decoder has taken.",
        "over zero all the time: decoders are the limit",
    )
    UNSETTLED_CATALOGS = _unsettled("catalog", "more than a batch for long: the engine is behind")
    UNSETTLED_FACTS = _unsettled("facts", "wait behind catalogs")
    UNSETTLED_REPORTS = _unsettled("report", "wait behind the others")
    OLDEST_CATALOG = _age("catalog", "what others' compiles wait for")
    OLDEST_FACTS = _age("facts", "minutes: catalogs take all there is")
    OLDEST_REPORT = _age("report", "minutes while a backlog of reports is worked off, and nobody minds")
    CONNECTED = _gauge(
        "receiver", "broker_connected", "1 while subscribed.", "0: look at the log for the reason"
    )
    PAUSED = _gauge(
        "receiver",
        "paused",
        "Over 0 while nothing is taken from the broker: 1, the database is away; 2, it has not settled yet what was let go of.",
        "over 0: look at the database; it goes on by itself",
    )
    WASTED = _gauge(
        "receiver",
        "subscriptions_wasted",
        "Subscriptions in a row that ended with most of their deliveries open.",
        "over 2: each costs a delivery of up to window_messages_max messages, and the next one waits longer",
    )
    DELIVERY_COUNT = _gauge(
        "receiver",
        "delivery_count_max",
        "The largest x-delivery-count that a message came with.",
        "near the queue's delivery-limit the broker drops or moves messages away: raise the limit",
    )
    CONNECTIONS = _counter(
        "receiver",
        "broker_connections",
        "Connection epochs.",
        "grows: the broker or the network drops us",
    )
    OLDEST_SECONDS = _gauge(
        "receiver",
        "oldest_unsettled_seconds",
        "Age of the oldest unsettled message.",
        "grows with the clock: a writer waits for the database",
    )
    DECODED = _counter(
        "decoder", "decoded", "Messages decoded.", "compare with received: the decoders' share"
    )
    DECODE_CPU_SECONDS = _counter(
        "decoder", "decode_cpu_seconds", "CPU time spent decoding.", "its rate: how many decoders are busy"
    )
    CACHE_HITS = _gauge(
        "decoder",
        "decoder_cache_hits",
        "Resources that a decoder had met before.",
        "over misses: the hit ratio",
    )
    CACHE_MISSES = _gauge(
        "decoder",
        "decoder_cache_misses",
        "Resources normalised.",
        "high all the time: raise decoder_cache_bytes_max",
    )
    FUTURE_TIMESTAMPS = _counter(
        "decoder",
        "future_timestamps",
        "Messages from further in the future than future_tolerance_s.",
        "any: the clock of a producer is wrong; the log names one of its nodes",
    )
    BATCH_MESSAGES = _histogram(
        "writer",
        "batch_messages",
        "Messages in one transaction.",
        "near batch_messages_max: the writers are the limit",
        SIZES,
    )
    BATCH_SECONDS = _histogram(
        "writer", "batch_seconds", "Time of one transaction.", "over a second: look at the database", SECONDS
    )
    LAG_SECONDS = _histogram(
        "writer",
        "lag_seconds",
        "From a catalog's producer_timestamp to its commit.",
        "seconds as a rule; minutes: a backlog, or a producer's clock that is behind",
        LAGS,
    )
    BATCH_LAG_SECONDS = _gauge(
        "writer",
        "batch_lag_seconds",
        "The largest lag in the last batch with catalogs.",
        "falls while a backlog is worked off: itself over its fall a second is the time until that is gone",
    )
    CATALOG_LAG = _kind_lag("catalog", "seconds as a rule")
    FACTS_LAG = _kind_lag("facts", "seconds as a rule")
    REPORT_LAG = _kind_lag("report", "the largest while a backlog is worked off: reports go last")
    ROWS_WRITTEN = _counter(
        "writer",
        "rows_written",
        "Rows inserted, updated or deleted.",
        "about one for each unchanged catalog",
    )
    BYTES_COPIED = _counter(
        "writer", "copy_bytes", "Bytes sent by COPY.", "far below received bytes, or everything is new"
    )
    RESOURCES_NEW = _counter(
        "writer",
        "resources_new",
        "Distinct resources stored for the first time.",
        "rises with a deploy",
    )
    QUARANTINE_THINNED = _counter(
        "writer",
        "quarantine_thinned",
        "Quarantined messages that are counted and not kept.",
        "grows: a producer sends many bad messages; 'ingest quarantine list' shows the newest",
    )
    DATABASE_UP = _gauge("writer", "database_up", "1 while connected.", "0: look at the log for the reason")
    DATABASE_CONNECTIONS = _counter(
        "writer", "database_connections", "Connections made.", "grows: the database drops us"
    )
    RESTARTS = _counter(
        "supervisor", "child_restarts", "Children replaced.", "any: the log says which one died and how"
    )
    FRONT_UP = _gauge(
        "supervisor",
        "front_up",
        "1 while this engine serves PuppetDB's interface too (--listen).",
        "0 with --listen: look at the log for the reason",
    )
    FRONT_RESTARTS = _counter(
        "supervisor", "front_restarts", "Fronts replaced.", "any: the log says how the one before ended"
    )
    COLLECTED = _counter(
        "supervisor", "collected", "Rows of unused content deleted.", "about what deploys left behind"
    )


METRICS: list[Declared] = [metric.declared for metric in Metric]


def declare(metrics: Iterable[Declared]) -> None:
    """What kinds of other distributions measure, behind ours: in every process the same, before it counts anything."""
    METRICS.extend(metric for metric in metrics if metric not in METRICS)
