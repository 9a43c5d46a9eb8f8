"""Shared memory, and the arena: where bodies lie between their arrival and their acknowledgement.

Shared memory is memfd (anonymous): no name, no size limit of /dev/shm, gone with the last process.
"""

from __future__ import annotations

import bisect
import mmap
import os


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
