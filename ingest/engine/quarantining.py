"""A writer's way from a bad message to its row: the body from where it lies, without its secrets, and a line in the log."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Iterable

import structlog

from ingest.core.delivery.thinning import Kept, row_digest, thin
from ingest.core.delivery.work import KILLED, Quarantine, Work
from ingest.core.occasional import Occasional
from ingest.core.secrets import KEPT_BYTES_MAX, redact, redact_headers
from ingest.errors import Rejected
from ingest.ipc.control import ChildChannels
from ingest.ipc.in_flight import InFlight
from ingest.ipc.process_metrics import ProcessMetrics
from ingest.store.quarantine import QuarantineRow

DETAIL_CHARACTERS_MAX = 2000
TOLD_A_MINUTE = 10  # of one producer's messages and for one reason; the next line says how many were not told
TOLD_OF_ALL_A_MINUTE = 50  # for one reason: who sends each message under another name fills no log either


class Quarantining:
    def __init__(
        self,
        channels: ChildChannels,
        row: ProcessMetrics,
        name: str,
        in_flight: InFlight,
        obey: Callable[[], None],
    ) -> None:
        """``obey`` waits for the supervisor's next word."""
        self._channels, self._row, self._name, self._in_flight, self._obey = (
            channels,
            row,
            name,
            in_flight,
            obey,
        )
        self._told = Occasional(TOLD_A_MINUTE, 60.0)
        self._told_of_all = Occasional(TOLD_OF_ALL_A_MINUTE, 60.0)
        self._log = structlog.get_logger()

    def rows(self, batch: Iterable[Work], unnamed_max: int) -> list[QuarantineRow]:
        """Of the bad messages of a batch; when they are many, a few."""
        bad = [work for work in batch if isinstance(work, Quarantine) and self._body_of(work) is not None]
        return [self._row_of(kept) for kept in thin(bad, unnamed_max)]

    def tell(self, batch: Iterable[Work]) -> None:
        """In the log, but not a thousand times a minute."""
        for work in batch:
            if not isinstance(work, Quarantine):
                continue
            passed_over = self._told.speak((work.reason, work.producer), time.monotonic())
            if passed_over is None:
                continue
            of_all = self._told_of_all.speak(work.reason, time.monotonic())
            if of_all is None:
                continue
            more = {"not_told_before": passed_over + of_all} if passed_over + of_all else {}
            self._log.warning(
                "message_quarantined", reason=work.reason, detail=work.detail, certname=work.certname,
                producer=work.producer, **more,
            )  # fmt: skip

    def _body_of(self, work: Quarantine) -> memoryview | None:
        """None when the body's owner is gone, or has settled it otherwise."""
        while work.arena > max(self._channels.arenas, default=0):
            self._obey()  # a new receiver's: its arena was handed over before anybody could send this, and is on its way
        arena = self._channels.arenas.get(work.arena)
        if arena is None:
            return None
        body = arena.view(work.offset, work.length)
        return body if zlib.crc32(body) == work.body_crc32 else None

    def _row_of(self, kept: Kept) -> QuarantineRow:
        work = kept.message
        self._in_flight.hold(self._name, work.delivery)  # whom redacting it may kill
        body: bytes | memoryview = self._body_of(work) or b""
        if len(body) <= KEPT_BYTES_MAX:
            body = bytes(body)  # its place may be another's before this is done
        text, note = _without_secrets(work, body)
        said = body if len(body) else f"{work.body_bytes} {work.headers.get('message-id')}".encode()
        body_digest = hashlib.sha256(said).digest()
        self._in_flight.empty(self._name)
        return QuarantineRow(
            deliveries=kept.deliveries,
            digest=row_digest(work, body_digest),
            reason=work.reason,
            detail=work.detail.replace("\0", "")[:DETAIL_CHARACTERS_MAX],
            certname=work.certname,
            producer=work.producer,
            # Lossy, and it shows: such a message cannot be given back as it came.
            headers={
                name: value.replace("\0", "\ufffd") for name, value in redact_headers(work.headers).items()
            },
            body=text,
            body_note=note,
            body_bytes=work.body_bytes,
            body_digest=body_digest,
            received_at=work.received_at,
            thinned=kept.thinned,
        )


def fact_alone(work: Quarantine, rejected: Rejected) -> QuarantineRow:
    """Of a message whose own row PostgreSQL refuses: that there was one."""
    return QuarantineRow(
        deliveries=(work.delivery,),
        digest=hashlib.sha256(f"refused\0{work.reason}".encode()).digest(),
        reason=work.reason,
        detail=rejected.text.replace("\0", ""),
        certname=None,
        producer=None,
        headers={},
        body=None,
        body_note="refused by PostgreSQL: not kept",
        body_bytes=work.body_bytes,
        body_digest=None,
        received_at=work.received_at,
    )


def _without_secrets(work: Quarantine, body: bytes | memoryview) -> tuple[bytes | None, str | None]:
    if work.body_bytes > len(body):
        return (
            None,
            "not kept: it killed whoever looked at it" if work.reason == KILLED else "too large: not kept",
        )
    return redact(body) if len(body) else (None, None)
