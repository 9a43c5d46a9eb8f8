"""``ingest compare URL``: beside a live PuppetDB, what differs and on which nodes."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from ingest.cli.printing import complain, say
from ingest.cli.settings import database, with_settings
from ingest.cli.values import FiniteRange
from ingest.config.loading import Origins
from ingest.errors import IngestError, Misconfigured

if TYPE_CHECKING:
    from ingest.front.comparing import Found

EXIT_EQUAL, EXIT_DIFFERS, EXIT_NOT_ASKED = 0, 1, 2
SETTLE_S = 5.0  # a mirrored command is stored on both sides well within it


@click.command("compare")
@click.argument("url", metavar="URL")
@click.option("--cert", default="", metavar="FILE", help="our certificate, for a PuppetDB with TLS")
@click.option("--key", default="", metavar="FILE", help="its key")
@click.option("--ca", default="", metavar="FILE", help="who signed PuppetDB's certificate")
@click.option("--since", metavar="TIME", help="no reports that are older than that: 30m, 2h, 7d")
@click.option(
    "--settle",
    default=SETTLE_S,
    show_default=True,
    type=FiniteRange(0, 3600),
    help="seconds until what differs is looked at once more, and told if it still does",
)
@click.option(
    "--json", "as_json", is_flag=True, help="a JSON object a line: each node that differs, then the counts"
)
@with_settings
def compare_command(
    settings: Origins, url: str, cert: str, key: str, ca: str, since: str | None, settle: float, as_json: bool
) -> int:
    """Say what differs between the PuppetDB at URL and what is stored here; changes nothing on either side.

    Exit code 0: nothing differs, 1: something does, 2: it could not be asked.
    """
    try:
        return _compare(settings, url, (cert, key, ca), since, settle, as_json)
    except IngestError as error:
        complain(str(error))
        return EXIT_NOT_ASKED


def _compare(
    settings: Origins, url: str, files: tuple[str, str, str], since: str | None, settle: float, as_json: bool
) -> int:
    from rich.progress import Progress

    from ingest.front.comparing import Comparison, Difference
    from ingest.front.peer import Peer

    config = settings.config
    cert, key, ca = files
    peer = Peer(url, setting="URL", cert=cert, key=key, ca=ca, timeout_s=config.query_timeout_s)
    with (
        database(config) as connection,
        Progress(transient=True, disable=not sys.stderr.isatty(), redirect_stdout=False) as progress,
    ):
        comparison = Comparison(
            peer,
            connection,
            timeout_s=config.query_timeout_s,
            purge_ttl_s=config.node_purge_ttl_s,
            since=_since(since),
        )
        task = progress.add_task("comparing", total=None)

        def told(nodes: int) -> None:
            progress.update(task, completed=nodes, total=comparison.total)

        def show(one: Difference) -> None:
            if as_json:
                say(json.dumps({"certname": one.certname, "differs": one.differs}))
                return
            say(one.certname)
            for kind, lines in one.differs.items():
                for line in lines:
                    say(f"  {kind}: {line}")

        for difference in comparison.run(settle, told):
            show(difference)
    _tell(comparison.found, peer.name, as_json)
    return EXIT_DIFFERS if comparison.found.differing else EXIT_EQUAL


def _tell(found: Found, peer: str, as_json: bool) -> None:
    counts = {
        "compared": found.nodes, "equal": found.nodes - found.differing, "differ": found.differing,
        "only_there": found.only_there, "only_here": found.only_here, "by_kind": dict(found.kinds),
    }  # fmt: skip
    if as_json:
        say(json.dumps(counts))
        return
    kinds = ", ".join(f"{count} in {kind}" for kind, count in sorted(found.kinds.items()))
    say(
        f"compared {found.nodes} nodes with {peer}: {found.nodes - found.differing} equal, "
        f"{found.differing} differ" + (f" ({kinds})" if kinds else "")
    )


def _since(text: str | None) -> str | None:
    from ingest.core.quantities import duration_s

    if text is None:
        return None
    try:
        at = datetime.now(UTC) - timedelta(seconds=duration_s(text))
    except (ValueError, OverflowError) as error:
        raise Misconfigured("--since", f"{text!r} is not a time like 30m or 2h") from error
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
