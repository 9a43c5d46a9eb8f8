"""Memory for message bodies that a connection of the engine reads into, when there is no engine around it."""

from __future__ import annotations

from ingest.transport.message import Message


class Room:
    """Space for ``left`` bodies at a time."""

    def __init__(self, left: int = 1 << 30) -> None:
        self.left = left
        self.bodies: list[bytearray] = []

    def allocate(self, length: int) -> int | None:
        if self.left == 0:
            return None
        self.left -= 1
        self.bodies.append(bytearray(length))
        return (len(self.bodies) - 1) << 32

    def free(self, offset: int, length: int) -> None:
        self.left += 1

    def view(self, offset: int, length: int) -> memoryview:
        start = offset & 0xFFFFFFFF
        return memoryview(self.bodies[offset >> 32])[start : start + length]

    def body(self, message: Message) -> bytes:
        assert message.offset is not None
        return bytes(self.view(message.offset, message.length))
