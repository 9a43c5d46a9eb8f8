"""The record of a calibration: what was measured, on what machine, with which program. Reports are made from it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ingest.core.delivery.importance import CATALOG, FACTS, REPORT
from ingest.errors import Misconfigured

SCHEMA = 2  # raised when the meaning of a field changes
READABLE = (1, SCHEMA)  # one of schema 1 has catalogs alone
# Of catalogs. "upgrade_new" is an upgrade whose content comes to its node's decoder for the first time.
KINDS = ("unchanged", "few", "upgrade", "upgrade_new", "first")
# Of the rest of a run: a node's first facts and all that follow; reports of a run that changed nothing, some resources, all.
FACTS_KINDS = ("facts_first", "facts_next")
REPORT_KINDS = ("report_unchanged", "report_few", "report_worst")
_RANKS = (
    dict.fromkeys(KINDS, CATALOG) | dict.fromkeys(FACTS_KINDS, FACTS) | dict.fromkeys(REPORT_KINDS, REPORT)
)


def rank_of_kind(kind: str) -> int:
    """How important the engine takes it."""
    return _RANKS[kind]


class Machine(msgspec.Struct, frozen=True):
    cores: int
    cpu: str
    memory_bytes: int
    system: str
    python: str
    postgresql: str


class Round(msgspec.Struct, frozen=True):
    """Some messages through the whole engine. ``cpu_s`` is by stage: receiver, decoder, writer,
    postgresql (the writers' server processes), postgresql_other, broker, supervisor."""

    name: str
    kinds: dict[str, int]  # messages
    kind_bytes: dict[str, int]  # their bodies
    mode: str  # "backlog": the engine is never idle; "flow": little waits; "calm": nothing does; "single": one at a time
    fresh_pages: bool  # a checkpoint came right before: WAL holds full-page images
    messages: int
    body_bytes: int
    batches: int
    batch_s: float  # their wall time
    settle_s: float  # receipt to settlement, of all messages
    seconds: float
    content_batches: int  # as many of them at most as there were messages with content
    cpu_s: dict[str, float]
    elsewhere_s: float  # CPU that had nothing to do with it, in that time
    wal_bytes: int
    copy_bytes: int
    rows: int


class Sample(msgspec.Struct, frozen=True):
    """One message that had the engine to itself: CPU seconds by stage."""

    kind: str
    body_bytes: int
    receiver_s: float
    decoder_s: float
    writer_s: float
    postgresql_s: float
    settle_s: float


class Sizes(msgspec.Struct, frozen=True):
    """The database with one node of each role, with all nodes, after their changes, and with what was unused
    collected."""

    nodes: int
    roles: int
    resources: int  # of all nodes together
    role_bytes: dict[str, int]
    first_bytes: dict[str, int]
    changed_bytes: dict[str, int]
    collected_bytes: dict[str, int]
    catalogs_pages: int


class Runs(msgspec.Struct, frozen=True):
    """What else a run sends, measured as catalogs are: facts and reports."""

    at: str
    cpu: str  # of the machine on which it was measured
    bodies: str  # whose
    rounds: tuple[Round, ...]
    stored_bytes: dict[str, float]  # what one message of a kind adds to the database, its indexes included
    event_bytes: float  # of that, a changed report's events


class Calibration(msgspec.Struct, frozen=True):
    schema: int
    at: str
    program: str
    commit: str
    machine: Machine
    templates: str
    workers: int
    writers: int
    seconds: float
    rounds: tuple[Round, ...]
    samples: tuple[Sample, ...]
    commit_s: tuple[float, ...]  # waits of the smallest commits
    crowding: float  # CPU time of the same work with all cores busy over that on an idle machine
    private_bytes: dict[str, int]  # by stage, the largest process
    sizes: Sizes
    checkpoint_s: int
    runs: Runs | None = None  # none in a record of schema 1


class _Version(msgspec.Struct):
    schema: int | None = None


def save(calibration: Calibration, file: Path) -> None:
    """Raises Misconfigured when the file cannot be written."""
    try:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n")
    except OSError as error:
        raise Misconfigured("--output", f"cannot write {file}: {error.strerror}") from error


def load(file: Path) -> Calibration:
    """Raises Misconfigured for anything but a calibration of this schema."""
    setting = "--calibration"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Misconfigured(setting, f"cannot read {file}: {error.strerror}") from error
    try:
        schema = msgspec.json.decode(data, type=_Version).schema
        if schema is None:
            raise Misconfigured(setting, f"{file} is no calibration: it has no schema version")
        if schema not in READABLE:
            raise Misconfigured(
                setting,
                f"{file} has schema {schema}, this program reads {SCHEMA}: 'ingest capacity calibrate' makes a new one",
            )
        return msgspec.json.decode(data, type=Calibration)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Misconfigured(setting, f"{file} is no calibration: {error}") from error
