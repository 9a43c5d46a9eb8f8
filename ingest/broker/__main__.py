"""``python -m ingest.broker``: the embedded broker alone, for tests and trials."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import signal
import ssl
import sys

from ingest.broker.server import Broker, serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ingest.broker", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=61613, help="0 takes a free one")
    parser.add_argument("--login", help="USER:PASSWORD that clients must give")
    parser.add_argument("--certfile")
    parser.add_argument("--keyfile")
    parser.add_argument("--with-parent", action="store_true", help="end when the starting process ends")
    options = parser.parse_args()
    if options.with_parent:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    login = None
    if options.login:
        user, _, password = options.login.partition(":")
        login = (user, password)
    tls = None
    if options.certfile:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certfile, options.keyfile)

    def ready(host: str, port: int) -> None:
        print(f"listening {host}:{port}", flush=True)

    try:
        asyncio.run(serve(options.host, options.port, Broker(login=login), ready, tls))
    except OSError as error:
        print(f"no broker on {options.host}:{options.port}: {error.strerror}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
