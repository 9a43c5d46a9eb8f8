"""The bytes of one client: from its socket into frames, from its deliveries onto the wire.

Bodies are written from where they were received (``sendmsg``). A MESSAGE that has not begun to leave when the
connection ends never leaves: its queue has it again.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

from ingest.embedded.broker.admission import Admission
from ingest.embedded.broker.broker_session import DEPTHS_DESTINATION, BrokerSession, Faults
from ingest.embedded.broker.logins import Logins
from ingest.embedded.broker.messages import Delivery, held_bytes
from ingest.embedded.broker.outbox import Outbox
from ingest.embedded.broker.parser import HangUp, Head, Limits, Parser
from ingest.embedded.broker.queues import Queues

READS_MAX = 16  # in one turn, so that one busy client does not starve the others
WRITE_BYTES_MAX = 8 * 1024 * 1024  # in one turn, for the same reason: about 5 ms
CONTROL_BYTES_MAX = 64 * 1024  # unread RECEIPTs and the like, before we read nothing more from such a client
CONNECT_TIMEOUT_S = 10.0  # until CONNECT must have come
STALLED_S = 60.0  # nothing more of a message that has begun: its room is others', who wait for it
BYTES_PER_S_MIN = 100_000  # of such a message, on the whole: a link of a megabit
LINGER_S = 2.0  # for a client to read our last frame and close
HEARTBEAT_GRACE = 2.0  # of the agreed interval; the specification asks for an error margin
NEVER = float("inf")
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Gone(Exception):  # the regular way out of a connection
    """The socket is of no more use: close it and put its messages back."""


class ClientConnection:
    def __init__(
        self,
        opened: socket.socket,
        name: str,
        queues: Queues,
        admission: Admission,
        limits: Limits,
        logins: Logins,
        faults: Faults,
        *,
        now_s: float,
    ) -> None:
        self.socket = opened
        self._outbox = Outbox()
        self.session = BrokerSession(queues, name, self._outbox.add_control, logins, faults)
        self.session.consumer.owner = self
        self.reason = ""  # why it was hung up
        self.closing = False  # the last frame is on its way; nothing that comes counts any more
        self.last_read_s = self.last_write_s = now_s
        self._tls = opened if isinstance(opened, ssl.SSLSocket) else None
        self._shaking_hands = self._tls is not None
        self._shake_needs_write = False
        self._shut = False
        self._parser = Parser(limits, self._admit)
        self._queues = queues
        self._admission = admission
        self._deadline_s: float | None = now_s + CONNECT_TIMEOUT_S
        self._faults = faults
        self._delivered_messages = 0
        self._whole_by_s = 0.0  # the message that is coming

    # What the server waits for

    @property
    def wants_read(self) -> bool:
        if self.closing or self._shaking_hands:
            return True
        if self.session.ended:
            return False  # only the last receipts are due
        return not self._parser.held and self._outbox.control_bytes <= CONTROL_BYTES_MAX

    @property
    def wants_write(self) -> bool:
        return self._shake_needs_write if self._shaking_hands else bool(self._outbox)

    @property
    def has_unread(self) -> bool:
        """TLS took more from the socket than was asked for: no selector will tell."""
        return (
            self._tls is not None and self.wants_read and not self._shaking_hands and self._tls.pending() > 0
        )

    # Reading

    def read(self, now_s: float) -> None:
        """Raises Gone at the end."""
        if not self.wants_read or (self._shaking_hands and not self._shake_hands()):
            return
        try:
            for _ in range(READS_MAX):
                target = self._parser.buffer() if not self.closing else memoryview(bytearray(64 * 1024))
                count = self.socket.recv_into(target)
                if not count:
                    raise Gone
                self.last_read_s = now_s
                if self.closing:
                    continue
                self._parser.received(count)
                self.process(now_s)
                if not self.wants_read or (count < len(target) and self._tls is None):
                    return
        except BLOCKED:
            return
        except OSError as error:
            raise Gone from error

    def process(self, now_s: float) -> None:
        """Takes what frames are here; also after having been held back."""
        parser, session = self._parser, self.session
        self.last_read_s = now_s
        try:
            while not session.ended and (frame := parser.next_frame()) is not None:
                session.handle(frame)
                if frame.command == "SEND":
                    self._admission.arrived(self)
                elif parser.version != session.version:
                    parser.version = session.version
                    self._deadline_s = None
        except HangUp as error:
            self.reason = error.text
            self._say_goodbye(now_s, self.session.error(error))
        else:
            if session.ended and not session.is_confirming:
                self._say_goodbye(now_s)

    def confirm(self, now_s: float, failure: str) -> None:
        """Something has become durable, or has not because of ``failure``."""
        if self.closing:
            return
        if failure and (error := self.session.refuse(failure)):
            self.reason = error.text
            self._say_goodbye(now_s, self.session.error(error))
            return
        self.session.confirm()
        if self.session.ended and not self.session.is_confirming:
            self._say_goodbye(now_s)

    def _admit(self, head: Head) -> bool:
        self.session.check(head)
        if head.command != "SEND" or head.headers["destination"] == DEPTHS_DESTINATION:
            return True
        needed_bytes = held_bytes(head.headers, head.length or 0)
        if refusal := self._queues.refusal(needed_bytes):
            raise HangUp(refusal, head.headers.get("receipt"))
        if self._admission.admit(self, needed_bytes):
            self._whole_by_s = self.last_read_s + STALLED_S + needed_bytes / BYTES_PER_S_MIN
            return True
        consumer = self.session.consumer
        if consumer.subscriptions or consumer.outstanding:
            # Its ACKs come behind this SEND: to wait here might be to wait for ever.
            raise HangUp(
                "the broker's memory is full: send on a connection that has no subscription",
                head.headers.get("receipt"),
            )
        return False

    # Writing

    def deliver(self, delivery: Delivery) -> None:
        self._outbox.add_message(self.session.message_head(delivery), delivery)

    def write(self, now_s: float) -> None:
        """Writes what the socket takes; raises Gone at the end."""
        if self._shaking_hands:
            self._shake_hands()
            return
        was_reading = self.wants_read
        try:
            self._write_out(now_s)
            if not was_reading and self.wants_read:
                self.last_read_s = now_s  # what we did not read cannot be missing
            if self.closing and not self._outbox:
                self._shut_down()
        except BLOCKED:
            return
        except OSError as error:
            raise Gone from error

    def _write_out(self, now_s: float) -> None:
        budget = WRITE_BYTES_MAX
        while self._outbox and budget > 0:
            wanted, sent = self._write_some()
            if sent:
                self.last_write_s = now_s
                for delivery in self._outbox.sent(sent):
                    self._delivered(delivery)
                budget -= sent
            if sent < wanted:
                return

    def _shut_down(self) -> None:
        """Not close(): what the client sent meanwhile would turn our last frame into a reset."""
        if not self._shut:
            self._shut = True
            self.socket.shutdown(socket.SHUT_WR)
            self._tls = None  # Python's shutdown ends the TLS layer as well

    def _write_some(self) -> tuple[int, int]:
        """(bytes offered, bytes taken)."""
        if self._tls is not None:
            part = self._outbox.first_part()
            return len(part), self._tls.send(part)
        parts, length = self._outbox.parts()
        return length, self.socket.sendmsg(parts)

    def _delivered(self, delivery: Delivery) -> None:
        consumer = self.session.consumer
        if delivery.subscription.ack == "auto" and consumer.outstanding.get(delivery.message.id) is delivery:
            self._queues.acknowledge(delivery)
        self._delivered_messages += 1
        if self._delivered_messages == self._faults.drop_after_messages:
            raise Gone

    # Time

    def due_s(self) -> float:
        """When ``tick`` has something to do."""
        due = self._deadline_s if self._deadline_s is not None else NEVER
        return due if self.closing else min(due, self._beat_at_s(), self._missing_at_s(), self._stalls_at_s())

    def tick(self, now_s: float) -> None:
        """Sends a heart-beat when one is due, ends what took too long. Raises Gone."""
        if self._deadline_s is not None and now_s >= self._deadline_s:
            raise Gone
        if self.closing:
            return
        if now_s >= self._missing_at_s():
            self.reason = "no heart-beat came"
        elif now_s >= self._stalls_at_s():
            self.reason = "a message has begun, and does not come"
        if self.reason:
            self._say_goodbye(now_s, self.session.error(HangUp(self.reason)))
        elif now_s >= self._beat_at_s():
            self.last_write_s = now_s  # also while a frame is stuck: to ask again at once would not help
            if not self._outbox:
                self._outbox.add_control(b"\n")

    def _beat_at_s(self) -> float:
        if not self.session.send_every_ms or self._faults.mute_heartbeats:
            return NEVER
        # Half of what was promised: a late turn of the loop must not break the promise.
        return self.last_write_s + self.session.send_every_ms / 1000 / 2

    def _missing_at_s(self) -> float:
        if not self.session.expect_every_ms or not self.wants_read:
            return NEVER
        return self.last_read_s + self.session.expect_every_ms / 1000 * HEARTBEAT_GRACE

    def _stalls_at_s(self) -> float:
        if not self._admission.is_coming(self):
            return NEVER
        return min(self._whole_by_s, self.last_read_s + STALLED_S)

    # The end

    def close(self) -> None:
        self._leave()
        self._outbox.clear()
        with contextlib.suppress(OSError):
            self.socket.close()

    def _say_goodbye(self, now_s: float, last_frame: bytes | None = None) -> None:
        """What has begun, or is no MESSAGE, still leaves; then the client closes, or LINGER_S does."""
        if self.closing:
            return
        self.closing = True
        self._deadline_s = now_s + LINGER_S
        self._outbox.withdraw_messages()
        if last_frame is not None:
            self._outbox.add_control(last_frame)
        self._leave()

    def _leave(self) -> None:
        self._parser.abandon()
        self._admission.forget(self)
        self._queues.leave(self.session.consumer)

    def _shake_hands(self) -> bool:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except BLOCKED as error:
            self._shake_needs_write = isinstance(error, ssl.SSLWantWriteError)
            return False
        except OSError as error:
            self.reason = f"no TLS: {error}"
            raise Gone from error
        self._shaking_hands = False
        return True
