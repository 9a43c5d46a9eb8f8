"""What a process may take of the machine's memory: each message a share of its own, and all that is kept a bound.

The limit of the operating system (RLIMIT_AS) is one for the whole process. So it is moved along with what the process has,
or what earlier messages left in it would be taken from the next ones.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource as limits

_PAGE_BYTES = limits.getpagesize()
_libc = ctypes.CDLL(None)


class Memory:
    """``message_bytes_max`` is what a message may take beside what the process has; ``kept_bytes_max`` what the process may
    have kept when it is between two messages."""

    def __init__(self, message_bytes_max: int, kept_bytes_max: int) -> None:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._message_bytes_max = message_bytes_max
        self._kept_bytes_max = kept_bytes_max
        self._started_with = self._private_bytes()
        self._limited_at = 0
        self.renew()

    def renew(self) -> None:
        """From now on the next message may take its share, whatever the process has by now."""
        self._limited_at = self._mapped_bytes()
        soft = self._limited_at + self._message_bytes_max
        _, hard = limits.getrlimit(limits.RLIMIT_AS)
        if hard != limits.RLIM_INFINITY:
            soft = min(soft, hard)
        limits.setrlimit(limits.RLIMIT_AS, (soft, hard))

    def gives_more(self) -> bool:
        """After a MemoryError: whether there was less than a message's share, and is all of it now."""
        give_back()
        taken = self._mapped_bytes() - self._limited_at
        self.renew()
        return taken > self._message_bytes_max // 16

    @property
    def kept_bytes(self) -> int:
        """What the process has more than at its start, shared memory not counted."""
        return self._private_bytes() - self._started_with

    def is_outgrown(self) -> bool:
        """Whether more is kept than may be, also after what is free was given back to the system."""
        if self.kept_bytes <= self._kept_bytes_max:
            return False
        give_back()
        return self.kept_bytes > self._kept_bytes_max

    def _mapped_bytes(self) -> int:
        return self._pages()[0] * _PAGE_BYTES

    def _private_bytes(self) -> int:
        _, resident, shared = self._pages()
        return (resident - shared) * _PAGE_BYTES

    def _pages(self) -> tuple[int, int, int]:
        mapped, resident, shared = os.pread(self._statm, 200, 0).split()[:3]
        return int(mapped), int(resident), int(shared)


def give_back() -> None:
    """What a large message left in the allocator goes back to the system."""
    gc.collect()
    _libc.malloc_trim(0)
