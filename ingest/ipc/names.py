"""The names of processes: the one place that makes them and takes them apart.

``receiver``, ``supervisor``, ``decoder-0``, ``writer-1``: the kind, and where there are several a number.
"""

from __future__ import annotations

RECEIVER, SUPERVISOR = "receiver", "supervisor"
DECODER, WRITER = "decoder", "writer"

# What all of them share, by the name under which the supervisor hands it over.
METRICS_TABLE, DIGESTS, IN_FLIGHT = "metrics", "stored-digests", "in-flight"


def decoder_name(number: int) -> str:
    return f"{DECODER}-{number}"


def writer_name(number: int) -> str:
    return f"{WRITER}-{number}"


def kind_of(name: str) -> str:
    """What sort of process it is: also the stage that a metric is declared for."""
    return name.partition("-")[0]


def tree_names(decoders: int, writers: int) -> list[str]:
    """Every process; its place in this list is its row of metrics and its entry of what is in flight."""
    return [
        RECEIVER,
        *map(decoder_name, range(decoders)),
        *map(writer_name, range(writers)),
        SUPERVISOR,
    ]
