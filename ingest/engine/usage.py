"""What the processes of the tree take of the machine, for whoever asks."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ingest.config.machine import cores
from ingest.engine.child_process import ChildProcess
from ingest.engine.process import cpu_s
from ingest.ipc.names import SUPERVISOR
from ingest.observe.exposition import Usage


def usage(children: Iterable[ChildProcess]) -> Usage:
    """From any thread: a child may be between two incarnations, and is left out then."""
    found = {SUPERVISOR: cpu_s(os.getpid())}
    for child in children:
        if (process := child.process) is not None:
            found[child.name] = cpu_s(process.pid)
    return Usage(cores(), found)
