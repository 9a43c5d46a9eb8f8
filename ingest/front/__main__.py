"""The front as a child of ``ingest run``: ``python -m ingest.front PARENT``, started by ``engine.front``.

The settings come through standard input; a line to standard output says that it serves, or why it does not.
"""

from __future__ import annotations

import os
import signal
import sys

from ingest.observe.lean import load_libraries

load_libraries()  # before the others import them

import msgspec

from ingest.config.settings import Config
from ingest.errors import IngestError, Misconfigured
from ingest.ipc.parent import Said, end_with_parent
from ingest.observe.log import crashed

EXIT_REFUSED = 2


def main() -> None:
    end_with_parent(signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = crashed
    config = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Config)
    try:
        from ingest.front.serving import serve

        sys.exit(serve(config, announce=lambda: _say(Said())))
    except ModuleNotFoundError as error:
        _say(Said(f"{error.name} is missing: pip install 'puppet-ingest[http]'", "--listen"))
    except Misconfigured as error:
        _say(Said(error.text, error.setting))
    except IngestError as error:
        _say(Said(str(error)))
    sys.exit(EXIT_REFUSED)


def _say(said: Said) -> None:
    try:
        sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
        sys.stdout.flush()
    except OSError:
        pass  # the engine has gone, and so will this


if __name__ == "__main__":
    main()
