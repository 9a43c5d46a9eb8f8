"""``python -m ingest.embedded.broker``: the embedded broker as a process of its own, for tests and evaluation.

Prints ``listening HOST:PORT`` when it is ready, logs on standard error, and ends cleanly on SIGTERM or
SIGINT.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from ingest.observe.lean import load_libraries

load_libraries()  # before the others import them

from ingest.config.address import split_address
from ingest.core.printable import escape_unprintable
from ingest.embedded.broker.listening import Place
from ingest.embedded.broker.logins import Credentials, Logins, credentials_of
from ingest.embedded.broker.parser import Limits
from ingest.embedded.broker.server import Server, Settings
from ingest.errors import IngestError, Misconfigured
from ingest.ipc.core_dumps import forbid_core_dumps
from ingest.ipc.parent import end_with_parent
from ingest.observe.log import configure

EXIT_USAGE = 2  # as argparse's own
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h


def main() -> int:
    forbid_core_dumps()
    asked = _arguments().parse_args()
    if asked.with_parent:
        end_with_parent(signal.SIGTERM)
    configure(asked.log_format, asked.log_level, process="embedded-broker")
    try:
        server = Server(asked.host, asked.port, _settings(asked))
    except IngestError as error:
        text = escape_unprintable(str(error))
        if asked.with_parent:
            print(f"failed {text}", flush=True)
        else:
            print(f"ingest.embedded.broker: {text}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, Misconfigured) else EXIT_UNAVAILABLE
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    try:
        _announce("{}:{}".format(*server.address), asked.ready_file)
        server.run()
    finally:
        server.close()
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ingest.embedded.broker", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=61613, help="0 picks a free one (default: %(default)s)")
    parser.add_argument(
        "--login-file",
        metavar="F",
        help="its first line is USER:PASSWORD, refuse everybody else; -: standard input",
    )
    parser.add_argument(
        "--producers-login-file", metavar="F", help="of one more login, USER:PASSWORD, which may only send"
    )
    parser.add_argument(
        "--producers-destination",
        metavar="D",
        action="append",
        default=[],
        help="where that may send; none: anywhere",
    )
    parser.add_argument("--ready-file", metavar="F", help="write HOST:PORT there when ready")
    parser.add_argument("--memory-bytes-max", type=int, default=Settings().memory_bytes_max)
    parser.add_argument(
        "--directory", default="", metavar="D", help="keep messages there, beyond this process's end"
    )
    parser.add_argument("--disk-bytes-max", type=int, default=Settings().disk_bytes_max)
    parser.add_argument("--body-bytes-max", type=int, default=Limits().body_bytes_max)
    parser.add_argument(
        "--with-parent", action="store_true", help="end when the process that started it ends"
    )
    parser.add_argument("--log-format", default="console", choices=("auto", "console", "json"))
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--certfile", default="", help="PEM; with it the broker speaks TLS only")
    parser.add_argument("--keyfile", default="", help="PEM, if not in the certificate's file")
    parser.add_argument("--public", metavar="HOST:PORT", help="listen there too, with TLS")
    parser.add_argument("--public-certfile", default="", help="PEM, for --public")
    parser.add_argument("--public-keyfile", default="", help="PEM, if not in the certificate's file")
    return parser


def _settings(asked: argparse.Namespace) -> Settings:
    return Settings(
        logins=Logins(
            _login(asked.login_file, "--login-file"),
            _login(asked.producers_login_file, "--producers-login-file"),
            frozenset(asked.producers_destination),
        ),
        memory_bytes_max=asked.memory_bytes_max,
        directory=asked.directory,
        disk_bytes_max=asked.disk_bytes_max,
        limits=Limits(body_bytes_max=asked.body_bytes_max),
        certfile=asked.certfile,
        keyfile=asked.keyfile,
        public=_public(asked),
    )


def _public(asked: argparse.Namespace) -> tuple[Place, ...]:
    if not asked.public:
        return ()
    host, port = split_address(asked.public)
    return (Place(host, port, asked.public_certfile, asked.public_keyfile, "--embedded-broker-cert-file"),)


def _login(file: str | None, setting: str) -> Credentials | None:
    """From a file, never from the command line: that is for everybody to see."""
    if file is None:
        return None
    try:
        if file == "-":
            line = sys.stdin.readline()
        else:
            with open(file, encoding="utf-8") as opened:
                line = opened.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(setting, f"{file}: {getattr(error, 'strerror', None) or error}") from error
    found = credentials_of(line)
    if found is None:
        raise Misconfigured(setting, "its first line is not USER:PASSWORD")
    return found


def _announce(address: str, ready_file: str | None) -> None:
    if ready_file:
        # Under another name first: who finds the file finds all of it.
        with open(f"{ready_file}.part", "w", encoding="utf-8") as part:
            part.write(f"{address}\n")
        os.replace(f"{ready_file}.part", ready_file)
    print(f"listening {address}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
