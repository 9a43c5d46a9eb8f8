"""The broker's sockets: one process, one asyncio loop, one object a connection."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
from collections.abc import Callable

from ingest.broker.frames import BadFrame, Frame, Reader, encode, encode_head
from ingest.broker.queues import Delivery, Message, Queues, Subscription

SERVER = "puppet-ingest-embedded/0.1"
PREFETCH_DEFAULT = 100
UNSENT_BYTES_MAX = 4 * 1024 * 1024  # of one consumer; its prefetch bounds the rest
VERSIONS = ("1.2", "1.1", "1.0")


class Broker:
    """Queues and who is connected. ``memory_bytes_max`` bounds queued bodies: over it, producers wait."""

    def __init__(
        self,
        *,
        login: tuple[str, str] | None = None,
        body_bytes_max: int = 128 * 1024 * 1024,
        memory_bytes_max: int = 1024 * 1024 * 1024,
    ) -> None:
        self.queues = Queues()
        self.login = login
        self.body_bytes_max = body_bytes_max
        self.memory_bytes_max = memory_bytes_max
        self.clients: set[Client] = set()

    def deliver(self, due: list[Delivery]) -> None:
        for subscription, message in due:
            assert isinstance(subscription.client, Client)
            subscription.client.push(subscription, message)
        if self.queues.bytes < self.memory_bytes_max:
            for client in self.clients:
                client.resume()

    @property
    def is_full(self) -> bool:
        return self.queues.bytes >= self.memory_bytes_max


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.reader = Reader(broker.body_bytes_max)
        self.version = "1.0"
        self.subscriptions: dict[str, Subscription] = {}
        self.connected = False
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._beats: list[asyncio.TimerHandle] = []
        self._last_read = 0.0

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        self.broker.clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.broker.clients.discard(self)
        for beat in self._beats:
            beat.cancel()
        subscriptions, self.subscriptions = list(self.subscriptions.values()), {}
        for subscription in subscriptions:
            self.broker.deliver(self.broker.queues.unsubscribe(subscription))

    def data_received(self, data: bytes) -> None:
        self._last_read = asyncio.get_running_loop().time()
        try:
            for frame in self.reader.feed(data):
                self._handle(frame)
        except BadFrame as error:
            self._fail(str(error), {})
        # A producer waits while the queues are full; a consumer is always read, its ACKs make room.
        if self.broker.is_full and not self.subscriptions and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # Frames

    def _handle(self, frame: Frame) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not self.connected and frame.command not in ("CONNECT", "STOMP"):
            self._fail("CONNECT comes first", frame.headers)
            return
        handler: Callable[[Frame], bool] | None = {
            "CONNECT": self._connect,
            "STOMP": self._connect,
            "SEND": self._send,
            "SUBSCRIBE": self._subscribe,
            "UNSUBSCRIBE": self._unsubscribe,
            "ACK": self._ack,
            "NACK": self._ack,
            "DISCONNECT": lambda _: True,
        }.get(frame.command)
        if handler is None:
            self._fail(f"{frame.command} is not supported", frame.headers)
            return
        if handler(frame) and "receipt" in frame.headers and frame.command not in ("CONNECT", "STOMP"):
            self._write(encode(Frame("RECEIPT", {"receipt-id": frame.headers["receipt"]}), self.version))
        if frame.command == "DISCONNECT":
            self._transport.close()

    def _connect(self, frame: Frame) -> bool:
        wanted = frame.headers.get("accept-version", "1.0").replace(" ", "").split(",")
        common = [version for version in VERSIONS if version in wanted]
        if not common:
            self._fail(f"no common version: this broker speaks {', '.join(VERSIONS)}", frame.headers)
            return False
        given = (frame.headers.get("login", ""), frame.headers.get("passcode", ""))
        if self.broker.login is not None and given != self.broker.login:
            self._fail("login refused", frame.headers)
            return False
        self.version = self.reader.version = common[0]
        self.connected = True
        theirs = frame.headers.get("heart-beat", "0,0").split(",")
        sends_ms, wants_ms = (int(part) if part.strip().isdigit() else 0 for part in (*theirs, "0")[:2])
        headers = {"version": self.version, "server": SERVER, "session": str(id(self))}
        headers["heart-beat"] = f"{wants_ms},{sends_ms}"
        self._write(encode(Frame("CONNECTED", headers), self.version))
        self._last_read = asyncio.get_running_loop().time()
        if wants_ms:
            self._beat(wants_ms / 1000)
        if sends_ms:
            self._watch(sends_ms / 1000)
        return True

    def _send(self, frame: Frame) -> bool:
        destination = frame.headers.get("destination")
        if not destination:
            self._fail("SEND without destination", frame.headers)
            return False
        headers = {k: v for k, v in frame.headers.items() if k not in ("receipt", "content-length")}
        self.broker.deliver(self.broker.queues.send(destination, headers, frame.body))
        return True

    def _subscribe(self, frame: Frame) -> bool:
        headers = frame.headers
        destination = headers.get("destination")
        if not destination:
            self._fail("SUBSCRIBE without destination", headers)
            return False
        mode = headers.get("ack", "auto")
        if mode not in ("auto", "client", "client-individual"):
            self._fail(f"unknown ack mode {mode!r}", headers)
            return False
        given = headers.get("prefetch-count") or headers.get("activemq.prefetchSize") or ""
        prefetch = int(given) if given.isdigit() and int(given) else PREFETCH_DEFAULT
        subscription = Subscription(self, headers.get("id", destination), destination, mode, prefetch)
        if subscription.id in self.subscriptions:
            self._fail(f"the subscription id {subscription.id!r} is taken", headers)
            return False
        self.subscriptions[subscription.id] = subscription
        self.resume()
        self.broker.deliver(self.broker.queues.subscribe(subscription))
        return True

    def _unsubscribe(self, frame: Frame) -> bool:
        id_ = frame.headers.get("id") or frame.headers.get("destination", "")
        subscription = self.subscriptions.pop(id_, None)
        if subscription is None:
            self._fail(f"no subscription {id_!r}", frame.headers)
            return False
        self.broker.deliver(self.broker.queues.unsubscribe(subscription))
        return True

    def _ack(self, frame: Frame) -> bool:
        name = frame.headers.get("id") if self.version == "1.2" else frame.headers.get("message-id")
        number = int(name) if name and name.isdigit() else -1
        settle = self.broker.queues.acknowledge if frame.command == "ACK" else self.broker.queues.refuse
        for subscription in list(self.subscriptions.values()):
            due = settle(subscription, number)
            if due is not None:
                self.broker.deliver(due)
                return True
        self._fail(f"{frame.command} of {name!r}, which is not in this connection's hands", frame.headers)
        return False

    # Towards the client

    def push(self, subscription: Subscription, message: Message) -> None:
        headers = message.headers | {
            "subscription": subscription.id,
            "message-id": str(message.number),
            "content-length": str(len(message.body)),
        }
        if self.version == "1.2" and subscription.mode != "auto":
            headers["ack"] = str(message.number)
        if message.redelivered:
            headers["redelivered"] = "true"
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines((encode_head("MESSAGE", headers, self.version), message.body, b"\0"))

    def _fail(self, text: str, headers: dict[str, str]) -> None:
        answer = {"message": text}
        if "receipt" in headers:
            answer["receipt-id"] = headers["receipt"]
        self._write(encode(Frame("ERROR", answer), self.version))
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _beat(self, every_s: float) -> None:
        self._write(b"\n")
        self._later(every_s * 0.9, lambda: self._beat(every_s))

    def _watch(self, every_s: float) -> None:
        silent_s = asyncio.get_running_loop().time() - self._last_read
        # Twice the agreed interval, and never while it is we who do not read.
        if silent_s > 2 * every_s and not self._paused and self._transport is not None:
            self._transport.abort()
            return
        self._later(every_s, lambda: self._watch(every_s))

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._beats = [beat for beat in self._beats if not beat.cancelled() and beat.when() > asyncio.get_running_loop().time()]
        self._beats.append(asyncio.get_running_loop().call_later(delay_s, call))


async def serve(
    host: str,
    port: int,
    broker: Broker,
    ready: Callable[[str, int], None],
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT. Raises OSError when the port is taken."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Client(broker), host, port, ssl=tls)
    ready(*server.sockets[0].getsockname()[:2])
    try:
        await stop.wait()
    finally:
        server.close()
        for client in list(broker.clients):
            if client._transport is not None:
                client._transport.abort()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 2)
