"""How the processes talk: shared memory for bodies, one pipe for each pair that has something to say.

Theory of operation. The supervisor makes everything and keeps nothing open: it sends each child, over the
child's control socket, the file descriptors of its ends (SCM_RIGHTS), at the start and again whenever a
neighbour was replaced. So a child that is killed can break only its own ends; whoever writes to it gets
EPIPE, drops the message and goes on; the receiver still owns the body and gives the work out again.

Shared memory is memfd (anonymous): no name, no size limit of /dev/shm, gone with the last process.
"""

from __future__ import annotations

import bisect
import mmap
import os
import secrets
import select
import selectors
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, TypeVar

import msgspec

from ingest.core.work import DIGEST_BYTES, FINGERPRINT_BYTES, SectionDigests

PIPE_BYTES = 1 << 20  # /proc/sys/fs/pipe-max-size of an unprivileged process
_F_SETPIPE_SZ = 1031

T = TypeVar("T")


# Links: messages from one process to one other


class Outbox:
    """The sending end. ``send`` blocks while the other side is busy; after its death it says False."""

    def __init__(self, connection: Connection, incarnation: int) -> None:
        self.incarnation = incarnation  # which successor of the peer this leads to
        self._connection = connection
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, message: Any) -> bool:
        return self.send_encoded(self.encode(message))

    def encode(self, message: Any) -> bytes:
        return self._encoder.encode(message)

    def send_encoded(self, message: bytes) -> bool:
        try:
            self._connection.send_bytes(message)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._connection.close()


class Inbox:
    """The receiving end of messages of one type."""

    def __init__(self, connection: Connection, type_: Any) -> None:
        self._connection = connection
        self._decoder = msgspec.msgpack.Decoder(type_)
        self._waiting = select.poll()  # Connection.poll makes a selector each time, ten times as slow
        self._waiting.register(connection, select.POLLIN)

    def fileno(self) -> int:
        return self._connection.fileno()

    def poll(self) -> bool:
        """Whether ``receive`` has something (a message or the end) without waiting for it to begin."""
        return bool(self._waiting.poll(0))

    def receive(self) -> Any:
        """The next message. Raises EOFError when the sender is gone, also in the middle of a message."""
        return self.receive_sized()[0]

    def receive_sized(self) -> tuple[Any, int]:
        """The next message and how many bytes it took."""
        try:
            data = self._connection.recv_bytes()
        except OSError as error:
            raise EOFError from error
        return self._decoder.decode(data), len(data)

    def close(self) -> None:
        self._connection.close()


def link() -> tuple[Connection, Connection]:
    """(receiving, sending) ends of a new pipe with a large buffer."""
    receiving, sending = Pipe(duplex=False)
    try:
        import fcntl

        fcntl.fcntl(sending.fileno(), _F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # over the user's pipe budget: the default of 64 KiB works too
    return receiving, sending


# Control: what the supervisor tells a child


class Handover(msgspec.Struct, array_like=True, frozen=True, tag="handover"):
    """A file descriptor follows: ``role`` says which end it is, ``peer`` whose."""

    role: str  # "inbox" | "outbox" | "arena" | "board" | "known" | "hands"
    peer: str
    number: int = 0  # the peer's incarnation, or the arena's number


class Order(msgspec.Struct, array_like=True, frozen=True, tag="order"):
    """A word of the supervisor: "go" (everything is wired), "drain", "stop", "reload" (with the settings)."""

    word: str
    detail: str = ""


class Report(msgspec.Struct, array_like=True, frozen=True):
    """A word of a child: "ready", "drained", "let_go", and with the line for the person "failed" (it ends) and
    "stop" (the engine shall)."""

    word: str
    detail: str = ""


class ParentControl:
    """The supervisor's end of a child's control socket."""

    def __init__(self) -> None:
        self.connection, self.child = Pipe(duplex=True)
        self.ended = False
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Report)

    def order(self, word: str, detail: str = "") -> None:
        self._send(Order(word, detail))

    def hand_over(self, role: str, peer: str, fd: int, number: int = 0) -> None:
        if self._send(Handover(role, peer, number)):
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

    def _send(self, message: Handover | Order) -> bool:
        try:
            self.connection.send_bytes(self._encoder.encode(message))
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.connection.close()


class Wires:
    """A child's side: its inboxes and outboxes by peer, its shared memory, and one place to wait on all."""

    def __init__(self, control: Connection, inbox_types: dict[str, Any]) -> None:
        self.inboxes: dict[str, Inbox] = {}
        self.outboxes: dict[str, Outbox] = {}
        self.incarnations: dict[str, int] = {}
        self.arenas: dict[int, Arena] = {}
        self.memory: dict[str, mmap.mmap] = {}
        self.selector = selectors.DefaultSelector()
        self._control = control
        self._inbox_types = inbox_types  # by the peer's kind: the name up to the dash
        self._decoder = msgspec.msgpack.Decoder(Handover | Order)
        self._encoder = msgspec.msgpack.Encoder()
        self.selector.register(control, selectors.EVENT_READ, "control")

    def report(self, word: str, detail: str = "") -> None:
        try:
            self._control.send_bytes(self._encoder.encode(Report(word, detail)))
        except OSError:
            pass  # the supervisor is gone: the end of the control socket will say so

    def control(self) -> Handover | Order:
        """The next message of the supervisor, a handover already carried out. EOFError: it is gone."""
        try:
            message: Handover | Order = self._decoder.decode(self._control.recv_bytes())
            if isinstance(message, Handover):
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

    def _take(self, handover: Handover, fd: int) -> None:
        if handover.role in ("inbox", "outbox"):
            self.incarnations[handover.peer] = handover.number
        match handover.role:
            case "inbox":
                self.drop_inbox(handover.peer)
                type_ = self._inbox_types[handover.peer.partition("-")[0]]
                inbox = Inbox(Connection(fd, writable=False), type_)
                self.inboxes[handover.peer] = inbox
                self.selector.register(inbox, selectors.EVENT_READ, handover.peer)
            case "outbox":
                old = self.outboxes.pop(handover.peer, None)
                if old is not None:
                    old.close()
                self.outboxes[handover.peer] = Outbox(Connection(fd, readable=False), handover.number)
            case "arena":
                # The receiver that owned the earlier ones is gone: their descriptors are void.
                for number in list(self.arenas):
                    del self.arenas[number]
                self.arenas[handover.number] = Arena(fd)
            case _:
                self.memory[handover.role] = mmap.mmap(fd, 0)
                os.close(fd)


# Shared memory


def memory(name: str, size_bytes: int) -> int:
    """The descriptor of new anonymous shared memory, all zero; pages cost nothing until they are touched."""
    fd = os.memfd_create(f"ingest-{name}")
    os.ftruncate(fd, size_bytes)
    return fd


class Arena:
    """The bodies. One process (the receiver) allocates and frees; the others look at (offset, length)."""

    # Cache lines: two bodies never share one.
    ALIGNMENT = 64

    def __init__(self, fd: int) -> None:
        self.size_bytes = os.fstat(fd).st_size
        self._memory = mmap.mmap(fd, self.size_bytes)
        os.close(fd)
        self._view = memoryview(self._memory)
        self._holes = [(0, self.size_bytes)]  # (offset, length), sorted, never adjacent
        self.used_bytes = 0
        # Ends of what was used since the last trim, and of what has pages.
        self._recent = self._touched = 0

    def view(self, offset: int, length: int) -> memoryview:
        return self._view[offset : offset + length]

    def allocate(self, length: int) -> int | None:
        """The offset of a free range, or None while there is no hole of that length. First fit: bodies are
        freed about in the order they came, so the low end is usually free again and its pages are warm."""
        need = self._rounded(length)
        for at, (offset, hole) in enumerate(self._holes):
            if hole >= need:
                if hole == need:
                    del self._holes[at]
                else:
                    self._holes[at] = (offset + need, hole - need)
                self.used_bytes += need
                self._recent = max(self._recent, offset + need)
                return offset
        return None

    def free(self, offset: int, length: int) -> None:
        size = self._rounded(length)
        self.used_bytes -= size
        at = bisect.bisect(self._holes, (offset, 0))
        if at < len(self._holes) and offset + size == self._holes[at][0]:
            size += self._holes.pop(at)[1]
        if at and sum(self._holes[at - 1]) == offset:
            before = self._holes[at - 1]
            self._holes[at - 1] = (before[0], before[1] + size)
        else:
            self._holes.insert(at, (offset, size))

    def trim(self) -> None:
        """Gives back the pages behind all that was used since the last call: an overload had filled them."""
        self._touched = max(self._touched, self._recent)
        keep = -(-self._recent // mmap.PAGESIZE) * mmap.PAGESIZE
        if keep < self._touched:
            self._memory.madvise(mmap.MADV_REMOVE, keep, self._touched - keep)
            self._touched = keep
        last = self._holes[-1] if self._holes else (self.size_bytes, 0)
        self._recent = last[0] if sum(last) == self.size_bytes else self.size_bytes

    def _rounded(self, length: int) -> int:
        return max(1, -(-length // self.ALIGNMENT)) * self.ALIGNMENT


class Known:
    """Digests of stored catalogs by certname: a lossy table in shared memory, written by the writers after
    a commit, read by the decoders.

    It is only a hint. A lost entry makes a decoder do more work; one that is no longer true makes it claim what the
    writer refutes from the database. A torn one is noticed: a fingerprint must not stand for another's digest.
    """

    ENTRIES = 1 << 17  # 7 MiB; two nodes in one place only cost each other the short cut
    _ENTRY = struct.Struct(f"=QI{FINGERPRINT_BYTES}s{DIGEST_BYTES}s")  # key, check, both digests
    _SEED = struct.Struct("=Q")

    def __init__(self, memory_: mmap.mmap) -> None:
        self._memory = memory_

    @classmethod
    def size_bytes(cls) -> int:
        return cls._SEED.size + cls.ENTRIES * cls._ENTRY.size

    @property
    def seed(self) -> int:
        """Of the fingerprints in here: as random as the memory's first bytes."""
        return int(self._SEED.unpack_from(self._memory)[0])

    def sow(self) -> None:
        """Chooses a seed, while the table is still empty."""
        self._SEED.pack_into(self._memory, 0, secrets.randbits(64))

    def put(self, certname: str, sections: SectionDigests) -> None:
        key, at = self._place(certname)
        self._ENTRY.pack_into(self._memory, at, key, zlib.crc32(b"".join(sections)), *sections)

    def get(self, certname: str) -> SectionDigests | None:
        key, at = self._place(certname)
        found, check, *digests = self._ENTRY.unpack_from(self._memory, at)
        if found != key or zlib.crc32(b"".join(digests)) != check:
            return None
        return SectionDigests(*digests)

    def _place(self, certname: str) -> tuple[int, int]:
        name = certname.encode()
        key = zlib.crc32(name) << 32 | zlib.adler32(name)
        return key, self._SEED.size + (key >> 32) % self.ENTRIES * self._ENTRY.size


class Hands:
    """What each process has in its hands right now: a delivery, and a session at PostgreSQL.

    When a process dies, this tells what may have killed it, and which session it may have left behind; the supervisor
    reads from it who is stuck. It reads while the other writes, so a number is stored at once: ``struct`` would clear
    its place and fill it byte by byte.
    """

    _NUMBERS = 2  # of 64 bits for each process: the delivery, the process id of its backend

    def __init__(self, memory_: mmap.mmap, processes: list[str]) -> None:
        self._numbers: memoryview[int] = memoryview(memory_).cast("Q")
        self._places = {name: self._NUMBERS * at for at, name in enumerate(processes)}

    @classmethod
    def size_bytes(cls, processes: int) -> int:
        return max(1, processes) * cls._NUMBERS * 8

    def hold(self, process: str, delivery: int) -> None:
        self._numbers[self._places[process]] = delivery

    def empty(self, process: str) -> None:
        self._numbers[self._places[process]] = 0

    def held(self, process: str) -> int | None:
        """The delivery's number, or None for empty hands."""
        return self._numbers[self._places[process]] or None

    def open_session(self, process: str, backend_pid: int) -> None:
        self._numbers[self._places[process] + 1] = backend_pid

    def session(self, process: str) -> int | None:
        """The process id of the backend that served the process last, maybe before it was replaced."""
        return self._numbers[self._places[process] + 1] or None
