"""What a protocol hands to the engine: a message, and the space that its body was put into."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """One message. ``offset`` is None when the body was too large to keep and has been passed over; with a verdict
    (reason, detail) the message is one for the quarantine, whatever its body says."""

    headers: dict[str, str]
    offset: int | None
    length: int
    body_bytes: int
    verdict: tuple[str, str] | None = None


class Space(Protocol):
    """Where bodies go: what a link needs of the arena."""

    def allocate(self, length: int) -> int | None: ...
    def free(self, offset: int, length: int) -> None: ...
    def view(self, offset: int, length: int) -> memoryview: ...
