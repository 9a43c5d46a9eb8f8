"""Cores and memory are those of the control group that we are in, whichever version of them there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.config import machine
from ingest.config.process_settings import CACHE_BYTES, MESSAGE_BYTES, WINDOW_BYTES
from ingest.config.settings import Config

MIB = 1024 * 1024
V2 = "30 24 0:26 {root} {point} rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = "33 32 0:29 {root} {point} rw,nosuid - cgroup cgroup rw,{controllers}\n"


def _root(tmp_path: Path, cgroup: str, mountinfo: str, files: dict[str, str]) -> Path:
    """proc and sys as a kernel would show them."""
    for name, text in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo, **files}.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


UNIFIED = V2.format(root="/", point="/sys/fs/cgroup")
OF_A_CONTAINER = V2.format(root="/docker/a1", point="/sys/fs/cgroup")


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "files", "quota"),
    [
        ("0::/\n", UNIFIED, {}, None),
        ("0::/\n", UNIFIED, {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ("0::/\n", UNIFIED, {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a.slice/b.service\n", UNIFIED, {"sys/fs/cgroup/a.slice/b.service/cpu.max": "50000 100000\n"}, 0.5),
        # What is above ours binds us too.
        ("0::/a/b\n", UNIFIED, {"sys/fs/cgroup/a/b/cpu.max": "800000 100000", "sys/fs/cgroup/a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b\n", UNIFIED, {"sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "25000 50000"}, 0.5),
        # A container without a namespace of its own sees the host's path, and its own group as the top.
        ("0::/docker/a1\n", OF_A_CONTAINER, {"sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        ("0::/elsewhere/x\n", OF_A_CONTAINER, {"sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        ("4:cpu,cpuacct:/docker/a1\n", V1.format(root="/", point="/sys/fs/cgroup/cpu,cpuacct", controllers="cpu,cpuacct"),
         {"sys/fs/cgroup/cpu,cpuacct/docker/a1/cpu.cfs_quota_us": "250000\n",
          "sys/fs/cgroup/cpu,cpuacct/docker/a1/cpu.cfs_period_us": "100000\n"}, 2.5),
        ("4:cpu:/\n", V1.format(root="/", point="/sys/fs/cgroup/cpu", controllers="cpu"),
         {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        # Both versions at once: the tighter one.
        ("4:cpu:/\n0::/\n", V1.format(root="/", point="/sys/fs/cgroup/cpu", controllers="cpu")
         + V2.format(root="/", point="/sys/fs/cgroup/unified"),
         {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
          "sys/fs/cgroup/unified/cpu.max": "100000 100000"}, 1.0),
        ("nonsense\n:\n", "nonsense\n1 2 - \n", {}, None),
        ("0::/\n", UNIFIED, {"sys/fs/cgroup/cpu.max": "0 0"}, None),
    ],
)  # fmt: skip
def test_a_quota_is_found(
    tmp_path: Path, cgroup: str, mountinfo: str, files: dict[str, str], quota: float | None
) -> None:
    """In cores, of version 1 and 2, at any height, in a container and out of it."""
    assert machine._quota(_root(tmp_path, cgroup, mountinfo, files)) == quota


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "files", "limit"),
    [
        ("0::/\n", UNIFIED, {"sys/fs/cgroup/memory.max": "max\n"}, None),
        ("0::/\n", UNIFIED, {"sys/fs/cgroup/memory.max": f"{512 * MIB}\n"}, 512 * MIB),
        ("0::/\n", UNIFIED, {"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.high": f"{400 * MIB}"}, 400 * MIB),
        ("0::/a/b\n", UNIFIED, {"sys/fs/cgroup/a/memory.max": f"{700 * MIB}"}, 700 * MIB),
        ("9:memory:/d\n", V1.format(root="/", point="/sys/fs/cgroup/memory", controllers="memory"),
         {"sys/fs/cgroup/memory/d/memory.limit_in_bytes": f"{256 * MIB}\n"}, 256 * MIB),
        ("9:memory:/d\n", V1.format(root="/", point="/sys/fs/cgroup/memory", controllers="memory"),
         {"sys/fs/cgroup/memory/d/memory.limit_in_bytes": "9223372036854771712\n"}, None),
    ],
)  # fmt: skip
def test_a_limit_of_memory_is_found(
    tmp_path: Path, cgroup: str, mountinfo: str, files: dict[str, str], limit: int | None
) -> None:
    """No limit is none in both versions, whatever number stands for it."""
    assert machine._memory_limit(_root(tmp_path, cgroup, mountinfo, files)) == limit


def test_where_there_is_no_proc_nothing_is_limited(tmp_path: Path) -> None:
    """And nothing fails."""
    assert machine._quota(tmp_path) is None
    assert machine._memory_limit(tmp_path) is None


def test_defaults_are_made_from_what_there_is() -> None:
    """Workers by cores, and what may be taken by memory."""
    config = Config()
    assert config.workers == machine.cores()
    assert (config.window_bytes_max, config.decoder_cache_bytes_max, config.decode_memory_bytes_max) == (
        WINDOW_BYTES,
        CACHE_BYTES,
        MESSAGE_BYTES,
    )
    assert 2 * config.body_bytes_max <= config.window_bytes_max <= max(16 * MIB, machine.memory_bytes() // 16)
