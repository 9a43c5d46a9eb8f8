"""What this process may take of the machine: its container's and its unit's share, not the host's.

A container, a unit with CPUQuota= or MemoryMax=, a pod with limits: the kernel keeps them in control groups. ``/proc`` and
psutil tell of the host. Every group above ours counts too; the tightest is what there is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Of cgroup v1 "no limit" is the largest whole number of pages; whatever is above any machine's memory means it.
UNLIMITED_BYTES = 1 << 60


@cache
def cores() -> int:
    """Cores that may be used at once: of a quota of 2.5, three."""
    found = _quota(Path("/"))
    allowed = len(os.sched_getaffinity(0))
    return allowed if found is None else max(1, min(allowed, math.ceil(found)))


@cache
def memory_bytes() -> int:
    """Memory that there is for this process and its neighbours of the same group."""
    found = _memory_limit(Path("/"))
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return physical if found is None else min(physical, found)


def _quota(root: Path) -> float | None:
    """In cores. ``root``: where proc and sys are."""
    found = []
    for directory in _groups(root, "cpu"):
        words = _words(directory / "cpu.max")  # version 2: "150000 100000", or "max 100000"
        if not words:
            words = [*_words(directory / "cpu.cfs_quota_us"), *_words(directory / "cpu.cfs_period_us")]
        if len(words) == 2 and all(map(str.isdigit, words)) and int(words[0]) and int(words[1]):
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def _memory_limit(root: Path) -> int | None:
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    found = [
        int(word)
        for directory in _groups(root, "memory")
        for name in names
        for word in _words(directory / name)
        if word.isdigit() and 0 < int(word) < UNLIMITED_BYTES
    ]
    return min(found, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of our group and of those above it, as far as they can be seen from here."""
    ours = dict(_memberships(root, controller))
    for mount_root, mount_point, is_unified in _mounts(root, controller):
        path = ours.get(is_unified)
        if path is None:
            continue
        # Where the mount shows a part of the tree (a container's), the path may be told from its top all the same.
        inside = os.path.relpath(path, mount_root) if _is_below(path, mount_root) else "."
        top = root / mount_point.lstrip("/")
        directory = Path(os.path.normpath(top / inside))
        yield from (each for each in (directory, *directory.parents) if each == top or top in each.parents)


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def _memberships(root: Path, controller: str) -> Iterator[tuple[bool, str]]:
    """(version 2, path); of each version one. Source: cgroups(7), "/proc/[pid]/cgroup"."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield True, path
        elif controller in controllers.split(","):
            yield False, path


def _mounts(root: Path, controller: str) -> Iterator[tuple[str, str, bool]]:
    """(what of the tree is there, where, version 2). Source: proc_pid_mountinfo(5)."""
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        if len(fields) < 5 or len(kinds) < 3:
            continue
        if kinds[0] == "cgroup2" or (kinds[0] == "cgroup" and controller in kinds[2].split(",")):
            yield fields[3], fields[4].replace("\\040", " "), kinds[0] == "cgroup2"


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _words(file: Path) -> list[str]:
    return [word for line in _lines(file) for word in line.split()]
