"""All that a live PuppetDB has, as files of an archive, by its queries: more than its own archive holds.

PuppetDB 7.12 leaves packages and deactivations out of an archive, and with a deactivated node among the others writes an empty
one (its own check of nodes stumbles over the time).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ingest.core.archive.from_rows import catalog_payload, facts_payload, inputs_payload, reports_payload
from ingest.core.archive.members import member
from ingest.core.archive.tar import Member
from ingest.front.peer import Peer

NODES_AT_ONCE = 5  # their catalogs are in memory
NODES_OF_PAGE = 1000
REPORTS_OF_PAGE = 50  # of up to a megabyte each

Rows = list[dict[str, Any]]


def files(peer: Peer, told: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Member]:
    """Raises Unavailable or Declined."""
    nodes = _nodes(peer)
    certnames = sorted(nodes)
    for at in range(0, len(certnames), NODES_AT_ONCE):
        few = certnames[at : at + NODES_AT_ONCE]
        for folder, payload in _read_payloads(peer, few, nodes):
            yield Member(*member(folder, payload))
        told(at + len(few), len(certnames))


def _nodes(peer: Peer) -> dict[str, dict[str, Any]]:
    """Of every state."""
    columns = ["certname", "deactivated", "expires_facts", "expires_facts_updated"]
    found: dict[str, dict[str, Any]] = {}
    while True:
        where = ["extract", columns, ["=", "node_state", "any"]]
        rows = peer.query(
            ["from", "nodes_with_fact_expiration", where,
             ["order_by", ["certname"]], ["limit", NODES_OF_PAGE], ["offset", len(found)]]
        )  # fmt: skip
        found |= {row["certname"]: row for row in rows}
        if len(rows) < NODES_OF_PAGE:
            return found


def _read_payloads(
    peer: Peer, certnames: list[str], nodes: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """By the folders of an archive, in the order in which they have to be stored."""
    for certname in certnames:
        node = nodes[certname]
        if (at := node["expires_facts_updated"]) is not None:
            payload = {
                "certname": certname,
                "expire": {"facts": node["expires_facts"]},
                "producer_timestamp": at,
            }
            yield "configure_expiration", payload
    packages: dict[str, Rows] = {}
    for row in peer.query(_any_state("package_inventory", certnames)):
        packages.setdefault(row["certname"], []).append(row)
    for row in peer.query(_any_state("factsets", certnames)):
        yield "facts", facts_payload(row, packages.get(row["certname"], ()))
    for row in peer.query(_any_state("catalogs", certnames)):
        yield "catalogs", catalog_payload(row)
    for row in peer.query(_any_state("catalog_inputs", certnames)):
        yield "catalog_inputs", inputs_payload(row)
    for row in _reports(peer, certnames):
        yield "reports", reports_payload(row)
    for certname in certnames:
        if (deactivated := nodes[certname]["deactivated"]) is not None:
            yield "deactivate_node", {"certname": certname, "producer_timestamp": deactivated}


def _reports(peer: Peer, certnames: list[str]) -> Iterator[dict[str, Any]]:
    """A page at a time; one that comes meanwhile moves a page's end, and its node sends the next one anyway."""
    where = [
        "and", ["in", "certname", ["array", certnames]], ["null?", "type", False], ["=", "node_state", "any"],
    ]  # fmt: skip
    seen = 0
    while True:
        rows = peer.query(
            ["from", "reports", where, ["order_by", ["certname", "producer_timestamp", "hash"]],
             ["limit", REPORTS_OF_PAGE], ["offset", seen]]
        )  # fmt: skip
        yield from rows
        seen += len(rows)
        if len(rows) < REPORTS_OF_PAGE:
            return


def _any_state(entity: str, certnames: list[str]) -> list[Any]:
    return ["from", entity, ["and", ["in", "certname", ["array", certnames]], ["=", "node_state", "any"]]]
