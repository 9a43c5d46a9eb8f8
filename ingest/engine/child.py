"""The entry of every child process: ``python -m ingest.engine.child NAME CONTROL_FD``, started by the supervisor."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection

from ingest.observe.lean import load_libraries

load_libraries()  # before the others import them

import msgspec

from ingest.config.settings import Config
from ingest.ipc.core_dumps import forbid_core_dumps
from ingest.ipc.names import DECODER, RECEIVER, kind_of
from ingest.ipc.parent import end_with_parent
from ingest.observe.log import crashed


def main() -> None:
    name, control_fd, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    forbid_core_dumps()
    # Whatever happens to the supervisor, no child stays behind.
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        return
    sys.excepthook = crashed
    control = Connection(control_fd)
    config = msgspec.msgpack.decode(control.recv_bytes(), type=Config)
    kind = kind_of(name)
    if kind == RECEIVER:
        from ingest.engine import receiver as process
    elif kind == DECODER:
        from ingest.engine import decoder as process  # type: ignore[no-redef]
    else:
        from ingest.engine import writer as process  # type: ignore[no-redef]
    process.run(config, control, name)


if __name__ == "__main__":
    main()
