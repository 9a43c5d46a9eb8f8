"""Debian's RabbitMQ with its STOMP plugin, in the foreground, in a temporary directory, on loopback ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers import free_port


@contextlib.contextmanager
def rabbitmq() -> Iterator[str]:
    """Gives the URL of a fresh broker."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-rabbitmq-"))
    directory.chmod(0o777)
    amqp, stomp, dist, epmd = (free_port() for _ in range(4))
    (directory / "plugins").write_text("[rabbitmq_stomp].")
    (directory / "rabbit.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{amqp}\nstomp.listeners.tcp.1 = 127.0.0.1:{stomp}\n"
    )
    environment = os.environ | {
        "HOME": str(directory),
        "RABBITMQ_NODENAME": f"puppet{stomp}@localhost",
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbit.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_DIST_PORT": str(dist),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    log = (directory / "output").open("wb")
    process = subprocess.Popen(
        ["rabbitmq-server"], env=environment, stdout=log, stderr=log, cwd=directory, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", stomp), 1).close()
                break
            assert process.poll() is None, (directory / "output").read_text()
            assert time.monotonic() < deadline, "RabbitMQ does not come up"
            time.sleep(0.1)
        yield f"stomp://guest:guest@127.0.0.1:{stomp}"
    finally:
        # A session of its own: the shell scripts around the emulator pass no signal on. epmd is in it too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()
        shutil.rmtree(directory, ignore_errors=True)
