"""Side by side with PuppetDB: the facts of the same nodes, round after round in turn, against one PostgreSQL.

Clones have names, addresses and hardware of their own.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bench.peers.rounds import Round, options_of, run
from lab import real_facts as corpus

_CERTNAME = re.compile(rb'"certname":"([^".]+)')


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--facts", type=Path, help="a directory of ROLE/run-K/facts-wire.json")
    parser.add_argument("--clones", type=int, default=100, help="of each node")
    rounds = (
        Round("first", lambda options: fleet(options, 1), 60, 60, 6.0),
        Round("next run", lambda options: fleet(options, 2), 40, 40, 1.5),
        Round("next run", lambda options: fleet(options, 3), 40, 40, 1.5),
        Round("packages upgraded", lambda options: fleet(options, 4), 40, 40, 6.0),
    )
    run("peers-facts", parser.parse_args(), rounds)


def fleet(options: argparse.Namespace, round_: int) -> list[bytes]:
    """Clone after clone of all nodes."""
    if options.facts is None:
        bodies = [corpus.body(role, round_) for role in corpus.ROLES]
    else:
        files = sorted(options.facts.glob(f"*/run-{round_}/facts-wire.json"))
        bodies = [file.read_bytes() for file in files]
    return [_clone(body, clone) for clone in range(options.clones) for body in bodies]


def _clone(body: bytes, clone: int) -> bytes:
    found = _CERTNAME.search(body)
    assert found is not None
    body = body.replace(found[1], found[1] + b"-c%d" % clone)
    body = re.sub(rb"10\.0\.0\.(\d+)", b"10.%d.%d.\\1" % divmod(clone, 256), body)
    return body.replace(b"52:54:00:", b"52:%02x:%02x:" % divmod(clone, 256))


if __name__ == "__main__":
    main()
