"""What has to go out to one client, in order, and how much of it has gone: bytes are gathered, never copied.

A small body is the exception: joined with its headers it costs less than two more parts for the kernel.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from ingest.embedded.broker.messages import Delivery
from ingest.embedded.broker.parser import Body

FRAMES_IN_WRITE_MAX = 256  # three parts each; Linux takes 1024 parts (IOV_MAX)
BYTES_IN_WRITE = 1024 * 1024  # gathered for one call; the kernel's own buffer grows to 4 MiB (tcp_wmem)
JOINED_BYTES_MAX = 16 * 1024


class _Frame:
    __slots__ = ("begun", "control_bytes", "delivery", "parts", "rest_bytes")

    def __init__(self, parts: list[Body], delivery: Delivery | None) -> None:
        self.parts = parts
        self.rest_bytes = sum(map(len, parts))
        self.delivery = delivery
        self.control_bytes = self.rest_bytes if delivery is None else 0
        self.begun = False


class Outbox:
    def __init__(self) -> None:
        self.control_bytes = 0  # of the frames that are no MESSAGE
        self._frames: deque[_Frame] = deque()

    def __bool__(self) -> bool:
        return bool(self._frames)

    def add_control(self, frame: bytes) -> None:
        self._frames.append(_Frame([frame], None))
        self.control_bytes += len(frame)

    def add_message(self, head: bytes, delivery: Delivery) -> None:
        body = delivery.message.body
        assert body is not None  # since its delivery began
        if len(body) <= JOINED_BYTES_MAX:
            self._frames.append(_Frame([b"".join((head, body, b"\0"))], delivery))
        else:
            self._frames.append(_Frame([head, body, b"\0"], delivery))

    def first_part(self) -> Body:
        """To be written alone. It counts as begun: TLS may have taken some of it even when it would block."""
        self._frames[0].begun = True
        return self._frames[0].parts[0]

    def parts(self) -> tuple[list[Body], int]:
        """To be written at once, with the sum of their lengths."""
        parts: list[Body] = []
        length = 0
        for frame in islice(self._frames, FRAMES_IN_WRITE_MAX):
            parts += frame.parts
            length += frame.rest_bytes
            if length >= BYTES_IN_WRITE:
                break
        return parts, length

    def sent(self, count: int) -> list[Delivery]:
        """That many bytes have gone; tells which messages have gone entirely."""
        gone = []
        while count:
            frame = self._frames[0]
            if count < frame.rest_bytes:
                frame.begun = True
                frame.rest_bytes -= count
                while count >= len(frame.parts[0]):
                    count -= len(frame.parts.pop(0))
                if count:
                    frame.parts[0] = memoryview(frame.parts[0])[count:]
                break
            count -= frame.rest_bytes
            self._frames.popleft()
            self.control_bytes -= frame.control_bytes
            if frame.delivery is not None:
                gone.append(frame.delivery)
        return gone

    def withdraw_messages(self) -> None:
        """Those that have not begun to leave stay here. What has begun must end, or no frame could follow."""
        self._frames = deque(frame for frame in self._frames if frame.begun or frame.delivery is None)

    def clear(self) -> None:
        self._frames.clear()
        self.control_bytes = 0
