"""What a decoder makes of one body, for who has no writer to send anything to before."""

from __future__ import annotations

from typing import Any

from ingest.core.delivery.decoding import KindDecoder, KnownDigests
from ingest.core.delivery.work import Descriptor


def work_of(decoder: KindDecoder, descriptor: Descriptor, body: bytes, known: KnownDigests) -> Any:
    """The work, without what came before it. Raises Rejected."""
    *_, work = decoder.decode(descriptor, memoryview(body), known)
    assert not work.is_early
    return work
