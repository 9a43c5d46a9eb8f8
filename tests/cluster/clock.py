"""Another wall clock for one program. libfaketime moves the monotonic clock too, or makes EINVAL of sleeps that go by it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += AHEAD_S;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec found;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &found)) return -1;
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}
"""


def missing() -> str | None:
    return None if shutil.which("cc") else "no C compiler: apt-get install gcc libc6-dev"


def ahead(directory: Path, seconds: int) -> tuple[str, ...]:
    """A program that becomes another one, whose wall clock, and that of all that it starts, is so far ahead."""
    source, library = directory / "clock.c", directory / "clock.so"
    source.write_text(_SOURCE)
    command = ["cc", "-shared", "-fPIC", "-O1", f"-DAHEAD_S={seconds}", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return ("env", f"LD_PRELOAD={library}")
