"""The STOMP protocol as one client sees it: frames in, frames out, changes to the queues.

It touches no socket and no clock; whoever owns it passes it whole frames and writes what it answers.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ingest.embedded.broker.logins import Logins
from ingest.embedded.broker.messages import Consumer, Delivery
from ingest.embedded.broker.parser import Frame, HangUp, Head
from ingest.embedded.broker.queues import Queues
from ingest.transport.stomp.codec import write_head

SERVER = "puppet-ingest-embedded/0.1"
VERSIONS = ("1.2", "1.1", "1.0")  # the best first
DEPTHS_DESTINATION = "/admin/depths"
ANSWERS_MAX = 100  # that wait on one reply-to: they are let in past the memory limit
PREFETCH_HEADERS = ("prefetch-count", "activemq.prefetchSize")
PREFETCH_MESSAGES = 100
PREFETCH_MESSAGES_MAX = 65535  # as RabbitMQ, where it is a 16-bit number
HEARTBEAT_MS_MIN = 100  # the shortest interval that we keep, and ask for
ACK_MODES = ("auto", "client", "client-individual")

# Of a SEND: meant for the broker, or written anew for each delivery.
_NOT_PASSED_ON = frozenset(
    {
        "receipt",
        "transaction",
        "content-length",
        "destination",
        "message-id",
        "subscription",
        "ack",
        "redelivered",
        "timestamp",
    }
)


class Faults(NamedTuple):
    """What a test may make the broker do badly."""

    drop_after_messages: int | None = None  # of a connection: the broker then closes it without a word
    mute_heartbeats: bool = False  # promised, and not sent
    omit_content_length: bool = False  # where the body holds no NUL: as ActiveMQ does for text messages


class BrokerSession:
    def __init__(
        self,
        queues: Queues,
        name: str,
        write: Callable[[bytes], None],
        logins: Logins | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.name = name
        self.version: str | None = None  # None: not yet connected
        self.consumer = Consumer()
        self.ended = False  # after DISCONNECT
        self._receipts: deque[tuple[int, str]] = (
            deque()
        )  # asked for, and from which position on they are true
        self.send_every_ms = self.expect_every_ms = 0  # heart-beats as agreed, 0: none
        self._queues = queues
        self._logins = logins or Logins()
        self.only_sends = False
        self._faults = faults or Faults()
        self._write = write
        self._commands: dict[str, Callable[[dict[str, str]], None]] = {
            "SUBSCRIBE": self._subscribe,
            "UNSUBSCRIBE": self._unsubscribe,
            "ACK": self._acknowledge,
            "NACK": self._reject,
            "DISCONNECT": self._disconnect,
        }

    def check(self, head: Head) -> None:
        """Raises HangUp for a frame whose body is not worth reading."""
        if self.version is None and head.command not in ("CONNECT", "STOMP"):
            raise HangUp("CONNECT comes first")
        if head.length and head.command != "SEND":
            raise HangUp(f"{head.command[:40]} has no body", head.headers.get("receipt"))
        if head.command == "SEND" and not head.headers.get("destination"):
            raise HangUp("SEND needs a destination", head.headers.get("receipt"))
        if head.command == "SEND":
            self._check_destination(head)

    def _check_destination(self, head: Head) -> None:
        """What nobody takes would stay until the limit is reached, and then everybody is refused."""
        allowed, destination = self._logins.destinations, head.headers["destination"]
        if self.only_sends and allowed and destination not in (*allowed, DEPTHS_DESTINATION):
            raise HangUp(f"this login may send to {', '.join(sorted(allowed))}", head.headers.get("receipt"))

    def handle(self, frame: Frame) -> None:
        """Raises HangUp when the connection has to end with an ERROR frame."""
        receipt = frame.headers.get("receipt")
        try:
            if frame.command == "SEND":
                self._send(frame)
            elif frame.command in ("CONNECT", "STOMP"):
                self._connect(frame.headers)
                return  # has CONNECTED for an answer, never a receipt
            else:
                self._command(frame)
        except HangUp as error:
            error.receipt = error.receipt or receipt
            raise
        if receipt is not None:
            self._receipts.append((self._queues.position, receipt))
            self.confirm()

    def confirm(self) -> None:
        """Answers with the receipts of all that is durable by now."""
        while self._receipts and self._receipts[0][0] <= self._queues.durable:
            self._answer("RECEIPT", {"receipt-id": self._receipts.popleft()[1]})

    def refuse(self, text: str) -> HangUp | None:
        """How to part with a client of whose messages one should be durable by now and is not; None: there is none."""
        if self._receipts and self._receipts[0][0] <= self._queues.durable:
            return HangUp(text, self._receipts[0][1])
        return None

    @property
    def is_confirming(self) -> bool:
        return bool(self._receipts)

    def error(self, error: HangUp) -> bytes:
        """The ERROR frame that says goodbye."""
        body = error.text.encode("utf-8", "surrogateescape")
        headers = {"message": error.text, "content-type": "text/plain", "content-length": str(len(body))}
        if error.receipt is not None:
            headers["receipt-id"] = error.receipt
        if self.version is None:
            headers["version"] = ",".join(reversed(VERSIONS))
        return write_head("ERROR", headers, self.version or "1.0") + body + b"\0"

    def message_head(self, delivery: Delivery) -> bytes:
        """What stands before the body of a MESSAGE frame; a NUL stands behind it."""
        message = delivery.message
        # The broker's own come first: of a repeated header the first counts.
        headers = {
            "subscription": delivery.subscription.id,
            "message-id": message.id,
            "destination": message.destination,
        }
        if self.version == "1.2" and delivery.subscription.ack != "auto":
            headers["ack"] = delivery.ack_id
        if delivery.attempt > 1:
            headers["redelivered"] = "true"
        if not (self._faults.omit_content_length and 0 not in bytes(message.body or b"")):
            headers["content-length"] = str(message.body_bytes)
        return write_head("MESSAGE", headers | message.headers, self.version)

    # Commands

    def _connect(self, headers: dict[str, str]) -> None:
        if self.version is not None:
            raise HangUp("this connection is connected already")
        asked = headers.get("accept-version", "1.0").replace(" ", "").split(",")
        version = next((version for version in VERSIONS if version in asked), None)
        if version is None:
            raise HangUp(f"supported protocol versions are {' '.join(reversed(VERSIONS))}")
        if not self._logins.may_enter(headers):
            raise HangUp("login refused")
        self.only_sends = self._logins.is_restricted(headers)
        answer = {"server": SERVER, "session": self.name}
        if "accept-version" in headers:
            answer["version"] = version
        if version != "1.0":
            can_ms, wants_ms = _heartbeat(headers.get("heart-beat", "0,0"))
            self.send_every_ms = max(wants_ms, HEARTBEAT_MS_MIN) if wants_ms else 0
            self.expect_every_ms = max(can_ms, HEARTBEAT_MS_MIN) if can_ms else 0
            answer["heart-beat"] = f"{HEARTBEAT_MS_MIN},{HEARTBEAT_MS_MIN}"
        self.version = version
        self._answer("CONNECTED", answer)

    def _send(self, frame: Frame) -> None:
        headers = frame.headers
        if "transaction" in headers:
            raise HangUp("transactions are not supported")
        if headers["destination"] == DEPTHS_DESTINATION:
            self._require_all_rights()
            self._tell_depths(headers)
            return
        kept = {name: value for name, value in headers.items() if name not in _NOT_PASSED_ON}
        self._queues.send(headers["destination"], kept, frame.body)

    def _tell_depths(self, headers: dict[str, str]) -> None:
        depths = {name: depth._asdict() for name, depth in self._queues.depths().items()}
        answer = {"content-type": "application/json"}
        if "correlation-id" in headers:
            answer["correlation-id"] = headers["correlation-id"]
        reply_to = _needed(headers, "SEND", "reply-to")
        if self._queues.ready_messages(reply_to) >= ANSWERS_MAX:
            raise HangUp(f"{ANSWERS_MAX} messages wait on the destination of reply-to, and nobody reads them")
        self._queues.send(reply_to, answer, json.dumps(depths).encode(), is_kept=False)

    def _command(self, frame: Frame) -> None:
        command = self._commands.get(frame.command)
        if frame.command in ("BEGIN", "COMMIT", "ABORT") or (command and "transaction" in frame.headers):
            raise HangUp("transactions are not supported")
        if command is None or (frame.command == "NACK" and self.version == "1.0"):
            raise HangUp(f"there is no {frame.command[:40]!r} in STOMP {self.version}")
        if frame.body:
            raise HangUp(f"{frame.command} has no body")
        command(frame.headers)

    def _require_all_rights(self) -> None:
        if self.only_sends:
            raise HangUp("this login may only send messages")

    def _subscribe(self, headers: dict[str, str]) -> None:
        self._require_all_rights()
        destination = _needed(headers, "SUBSCRIBE", "destination")
        id = self._subscription_id("SUBSCRIBE", headers)
        ack = headers.get("ack", "auto")
        if ack not in ACK_MODES:
            raise HangUp(f"ack is one of {', '.join(ACK_MODES)}")
        if destination == DEPTHS_DESTINATION:
            raise HangUp(f"{DEPTHS_DESTINATION} answers a SEND that has a reply-to")
        if id in self.consumer.subscriptions:
            raise HangUp("there is a subscription of that id already")
        if ack == "client" and self.version == "1.0":
            ack = "client-individual"  # cumulative came with 1.1
        self._queues.subscribe(self.consumer, id, destination, ack, _prefetch(headers))

    def _unsubscribe(self, headers: dict[str, str]) -> None:
        if not self._queues.unsubscribe(self.consumer, self._subscription_id("UNSUBSCRIBE", headers)):
            raise HangUp("there is no subscription of that id")

    def _acknowledge(self, headers: dict[str, str]) -> None:
        self._queues.acknowledge(self._outstanding("ACK", headers))

    def _reject(self, headers: dict[str, str]) -> None:
        self._queues.reject(self._outstanding("NACK", headers))

    def _disconnect(self, headers: dict[str, str]) -> None:
        self.ended = True

    def _outstanding(self, command: str, headers: dict[str, str]) -> Delivery:
        if self.version == "1.2":
            delivery = self._queues.outstanding_by_ack(self.consumer, _needed(headers, command, "id"))
        else:
            delivery = self._queues.outstanding(self.consumer, _needed(headers, command, "message-id"))
            if self.version == "1.1":
                subscription = _needed(headers, command, "subscription")
                if delivery is not None and delivery.subscription.id != subscription:
                    delivery = None
        if delivery is None or delivery.subscription.ack == "auto":
            raise HangUp(f"{command} of a message that this connection has not, or no longer, to acknowledge")
        return delivery

    def _subscription_id(self, command: str, headers: dict[str, str]) -> str:
        if self.version == "1.0" and "id" not in headers:
            return _needed(headers, command, "destination")
        return _needed(headers, command, "id")

    def _answer(self, command: str, headers: dict[str, str]) -> None:
        self._write(write_head(command, headers, self.version) + b"\0")


def _needed(headers: dict[str, str], command: str, name: str) -> str:
    value = headers.get(name)
    if not value:
        raise HangUp(f"{command} needs the header {name}")
    return value


def _prefetch(headers: dict[str, str]) -> int:
    for name in PREFETCH_HEADERS:
        if name in headers:
            value = headers[name]
            if not (value.isascii() and value.isdigit() and len(value) <= len(str(PREFETCH_MESSAGES_MAX))):
                raise HangUp(f"{name} is not a number")
            if not 1 <= int(value) <= PREFETCH_MESSAGES_MAX:
                raise HangUp(f"{name} is 1 to {PREFETCH_MESSAGES_MAX}: nothing here is unbounded")
            return int(value)
    return PREFETCH_MESSAGES


def _heartbeat(value: str) -> tuple[int, int]:
    """(how often the client can send, how often it wants to hear from us), in milliseconds."""
    can, _, wants = value.replace(" ", "").partition(",")
    if not all(one.isascii() and one.isdigit() and len(one) <= 9 for one in (can, wants)):
        raise HangUp("heart-beat is not two numbers of milliseconds")
    return int(can), int(wants)
