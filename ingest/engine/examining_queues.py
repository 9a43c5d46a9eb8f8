"""Looks at what only clusters of brokers have: nodes beside each other, queues that are copied."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ingest.core.quantities import duration_text
from ingest.engine.finding import Finding, State, wrong
from ingest.transport.protocol import Broker

DELIVERY_LIMIT_MIN = 20  # RabbitMQ's own; docs/brokers.md says what an outage takes of it
MEMBERS_MIN = 3  # of a quorum queue: two of them can be lost to nobody
QUEUE, AMQ_QUEUE = "/queue/", "/amq/queue/"
HEARTBEAT_S, HEARTBEAT_MAX_S = 3.0, 5.0  # where there is another broker to go to: left after two of them


def examine_queues(broker: Broker, destinations: Iterable[str], brokers: int) -> Iterator[Finding]:
    """``broker`` is a RabbitMQ, one of so many."""
    ask_nodes = getattr(broker, "nodes", None)
    yield from node_findings((ask_nodes and ask_nodes()) or (), brokers)
    yield from destination_findings(destinations, brokers)
    ask = getattr(broker, "queue", None)  # not every transport's has it
    for destination in destinations:
        name = destination.removeprefix(AMQ_QUEUE).removeprefix(QUEUE)
        kept = ask(name) if ask and name != destination else None
        if kept is not None:
            yield from queue_findings(name, kept, brokers)


def silence_findings(heartbeat_s: float, brokers: int) -> Iterator[Finding]:
    """How long one of several brokers is waited for that says nothing any more."""
    if brokers < 2 or 0 < heartbeat_s <= HEARTBEAT_MAX_S:
        return
    left = f"after {duration_text(2 * heartbeat_s)}" if heartbeat_s else "by nobody"
    yield Finding(
        "broker",
        State.NOTE,
        f"one of {brokers} brokers that falls silent, cut off or frozen, is left {left}, and only then the next one is asked",
        f"heartbeat_s = {HEARTBEAT_S:g}: docs/clusters.md",
        "--heartbeat-s",
    )


def node_findings(nodes: Sequence[Mapping[str, Any]], brokers: int) -> Iterator[Finding]:
    """``nodes``: what RabbitMQ's management says of each; none where it says nothing. How it handles partitions it does not
    say, only that there was one."""
    for node in nodes:
        name = str(node.get("name", "a node"))
        if node.get("running") is False:
            yield Finding(
                "nodes", State.AWAY, f"{name} does not run", "start it: with another one lost the queues stop"
            )
        if node.get("partitions"):
            yield wrong(
                "nodes",
                f"{name} was cut off from {', '.join(map(str, node['partitions']))}, and both sides went on",
                "restart the nodes of the smaller side, and set cluster_partition_handling = pause_minority in rabbitmq.conf",
            )
        for alarm, what in (
            ("disk_free_alarm", "disk is nearly full"),
            ("mem_alarm", "memory is nearly used up"),
        ):
            if node.get(alarm):
                yield wrong(
                    "nodes",
                    f"{name}: its {what}, so no broker of the cluster takes messages",
                    "make room, or start more engines: they go on emptying the queues",
                )
    if len(nodes) == 2:
        yield Finding(
            "nodes",
            State.NOTE,
            "two RabbitMQ nodes: with one of them lost quorum queues stop, and pause_minority stops the other",
            "a third node; docs/clusters.md",
        )
    if len(nodes) > brokers:
        yield Finding(
            "nodes",
            State.NOTE,
            f"the cluster has {len(nodes)} nodes, and queue_source names {brokers}",
            "name all of them, unless that is a balancer's address",
            "--queue-source",
        )
    elif len(nodes) > 1 and all(node.get("running") for node in nodes):
        yield Finding("nodes", State.OK, f"{len(nodes)} RabbitMQ nodes run")


def destination_findings(destinations: Iterable[str], brokers: int) -> Iterator[Finding]:
    """At a RabbitMQ of which several are named."""
    declared = [each for each in destinations if each.startswith(QUEUE)]
    if brokers > 1 and declared:
        names = ", ".join(AMQ_QUEUE + each.removeprefix(QUEUE) for each in declared)
        yield wrong(
            "queues",
            f"{', '.join(declared)} at {brokers} brokers: RabbitMQ declares a classic queue of that name, which lives on one "
            "of them, and refuses one that is a quorum queue",
            f"declare quorum queues, and take from {names}: docs/clusters.md",
            "--destination",
        )


def queue_findings(name: str, kept: Mapping[str, Any], brokers: int) -> Iterator[Finding]:
    """``kept``: what RabbitMQ's management says of a queue."""
    kind = str(kept.get("type", ""))
    if kind != "quorum":
        if brokers > 1:
            yield wrong(
                "queues",
                f"{name} is a {kind or 'classic'} queue, which lives on one of {brokers} brokers",
                "declare another with x-queue-type: quorum, let producers and engines use that one, drain this",
                "--destination",
            )
        return
    members = kept.get("members")
    if brokers >= MEMBERS_MIN and isinstance(members, list) and len(members) < MEMBERS_MIN:
        yield wrong(
            "queues",
            f"{name} has {len(members)} member{'s' * (len(members) != 1)}: with one of them lost it stops",
            f"rabbitmq-queues grow NODE all --queue-pattern '^{name}$' for each broker without one",
            "--destination",
        )
    yield from _limit_findings(name, kept)


def _limit_findings(name: str, kept: Mapping[str, Any]) -> Iterator[Finding]:
    policy, arguments = (_object(kept.get(key)) for key in ("effective_policy_definition", "arguments"))
    limits = [
        found
        for found in (policy.get("delivery-limit"), arguments.get("x-delivery-limit"))
        if isinstance(found, int) and found >= 0
    ]
    has_target = "dead-letter-exchange" in policy or "x-dead-letter-exchange" in arguments
    limit = min(limits, default=None)
    what = "moves to its dead-letter target" if has_target else "drops"
    if limit is not None and not has_target:
        yield Finding(
            "queues",
            State.NOTE,
            f"{name} has a delivery-limit of {limit} and no dead-letter target: what goes beyond is gone",
            f"declare a durable queue for it, and name that in the policy: {_policy(name, max(limit, DELIVERY_LIMIT_MIN))}",
            "--destination",
        )
    if limit is not None and limit < DELIVERY_LIMIT_MIN:
        yield Finding(
            "queues",
            State.NOTE,
            f"{name} {what} what was delivered more than {limit} times",
            f"{DELIVERY_LIMIT_MIN} or more: {_policy(name, DELIVERY_LIMIT_MIN)}",
            "--destination",
        )
    elif limit is None or has_target:
        yield Finding(
            "queues",
            State.OK,
            f"{name} is a quorum queue{'' if limit is None else f', its delivery-limit {limit}'}",
        )


def _policy(name: str, limit: int) -> str:
    told = {"delivery-limit": limit, "dead-letter-exchange": "", "dead-letter-routing-key": f"dropped-{name}"}
    return f"rabbitmqctl set_policy ingest '^{name}$' '{json.dumps(told, separators=(',', ':'))}' --apply-to queues"


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
