"""Control: what the supervisor tells a child, and the child's side of all its channels.

Theory of operation. The supervisor makes everything and keeps nothing open: it sends each child, over the
child's control socket, the file descriptors of its ends (SCM_RIGHTS), at the start and again whenever a
neighbour was replaced.
"""

from __future__ import annotations

import mmap
import os
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import msgspec

from ingest.ipc.arena import Arena
from ingest.ipc.names import kind_of
from ingest.ipc.pipes import Inbox, Outbox


class FdTransfer(msgspec.Struct, array_like=True, frozen=True, tag="transfer"):
    """A file descriptor follows: ``role`` says which end it is, ``peer`` whose."""

    role: str  # "inbox", "outbox", "arena" or one of the names of shared memory
    peer: str
    number: int = 0  # the peer's incarnation, or the arena's number


class Order(msgspec.Struct, array_like=True, frozen=True, tag="order"):
    """A word of the supervisor: "go" (everything is wired), "drain", "stop", "reload" (with the settings)."""

    word: str
    detail: str = ""


class Report(msgspec.Struct, array_like=True, frozen=True):
    """A word of a child: "ready", "drained", and with the line for the person "retiring" (it ends, and is to be
    replaced) and "failed" (it ends)."""

    word: str
    detail: str = ""


class ParentChannel:
    """The supervisor's end of a child's control socket."""

    def __init__(self) -> None:
        self.connection, self.child = Pipe(duplex=True)
        self.ended = False
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Report)

    def order(self, word: str, detail: str = "") -> None:
        self._send(Order(word, detail))

    def hand_over(self, role: str, peer: str, fd: int, number: int = 0) -> None:
        if self._send(FdTransfer(role, peer, number)):
            try:
                send_handle(self.connection, fd, os.getpid())
            except OSError:
                pass  # it died meanwhile; its sentinel tells

    def reports(self) -> Iterator[Report]:
        """What the child has said since; nothing more once it is gone."""
        try:
            while self.connection.poll():
                yield self._decoder.decode(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.ended = True

    def _send(self, message: FdTransfer | Order) -> bool:
        try:
            self.connection.send_bytes(self._encoder.encode(message))
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.connection.close()


class ChildChannels:
    """A child's side: its inboxes and outboxes by peer, its shared memory, and one place to wait on all."""

    def __init__(self, control: Connection, inbox_types: dict[str, Any]) -> None:
        self.inboxes: dict[str, Inbox] = {}
        self.outboxes: dict[str, Outbox] = {}
        self.incarnations: dict[str, int] = {}
        self.arenas: dict[int, Arena] = {}
        self.memory: dict[str, mmap.mmap] = {}
        self.selector = selectors.DefaultSelector()
        self._control = control
        self._inbox_types = inbox_types  # by the peer's kind
        self._decoder = msgspec.msgpack.Decoder(FdTransfer | Order)
        self._encoder = msgspec.msgpack.Encoder()
        self.selector.register(control, selectors.EVENT_READ, "control")

    def report(self, word: str, detail: str = "") -> None:
        try:
            self._control.send_bytes(self._encoder.encode(Report(word, detail)))
        except OSError:
            pass  # the supervisor is gone: the end of the control socket will say so

    def control(self) -> FdTransfer | Order:
        """The next message of the supervisor, a transfer already carried out. EOFError: it is gone."""
        try:
            message: FdTransfer | Order = self._decoder.decode(self._control.recv_bytes())
            if isinstance(message, FdTransfer):
                self._take(message, recv_handle(self._control))
        except OSError as error:
            raise EOFError from error
        return message

    def until_go(self) -> None:
        """Takes what the supervisor hands over until it says "go"."""
        while True:
            message = self.control()
            if isinstance(message, Order) and message.word == "go":
                return

    def drop_inbox(self, peer: str) -> None:
        """The sender is gone; a new end comes with its successor."""
        inbox = self.inboxes.pop(peer, None)
        if inbox is not None:
            self.selector.unregister(inbox)
            inbox.close()

    @contextmanager
    def only_control(self) -> Iterator[selectors.BaseSelector]:
        """Waiting for the supervisor alone, whatever the neighbours send."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            yield selector

    def _take(self, transfer: FdTransfer, fd: int) -> None:
        if transfer.role in ("inbox", "outbox"):
            self.incarnations[transfer.peer] = transfer.number
        match transfer.role:
            case "inbox":
                self.drop_inbox(transfer.peer)
                type_ = self._inbox_types[kind_of(transfer.peer)]
                inbox = Inbox(Connection(fd, writable=False), type_)
                self.inboxes[transfer.peer] = inbox
                self.selector.register(inbox, selectors.EVENT_READ, transfer.peer)
            case "outbox":
                old = self.outboxes.pop(transfer.peer, None)
                if old is not None:
                    old.close()
                self.outboxes[transfer.peer] = Outbox(Connection(fd, readable=False), transfer.number)
            case "arena":
                # The receiver that owned the earlier ones is gone: their descriptors are void.
                for number in list(self.arenas):
                    del self.arenas[number]
                self.arenas[transfer.number] = Arena(fd)
            case _:
                self.memory[transfer.role] = mmap.mmap(fd, 0)
                os.close(fd)
