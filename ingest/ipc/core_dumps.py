"""No process of the engine leaves its memory on a disk when it crashes: bodies lie in it as they came, and passwords.

Not PR_SET_DUMPABLE: it would also take /proc/PID from the engine's own user, and ``ingest capacity`` reads there what each
process takes. Both of these are inherited, by an embedded PostgreSQL too.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

# core(5): what a dump may hold, a bit for each kind of memory. It also holds for one that goes to a program
# (systemd-coredump, apport), which the limit on core files does not.
_FILTER = Path("/proc/self/coredump_filter")


def forbid_core_dumps() -> None:
    """For this process and all that it starts from now on."""
    with contextlib.suppress(OSError):
        _FILTER.write_text("0")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
