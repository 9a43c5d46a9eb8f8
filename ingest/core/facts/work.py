"""What a decoder hands to a writer of a node's facts."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec


class Shape(msgspec.Struct, array_like=True, frozen=True):
    """The facts that a node has, without their values: sorted by name."""

    names: list[str]  # with U+FFFD for what text cannot hold
    templates: list[str]
    exact_names: str | None = None  # a JSON array, where that makes a difference


class Package(msgspec.Struct, array_like=True, frozen=True, order=True):
    name: str
    version: str
    provider: str


class Inventory(msgspec.Struct, array_like=True, frozen=True):
    """The packages of a node. None where this decoder has sent them before, and they need not be known."""

    digest: bytes
    packages: list[Package] | None


class Factset(msgspec.Struct, array_like=True, frozen=True, tag="facts"):
    """All facts of a node at one time."""

    is_early: ClassVar[bool] = False

    delivery: int
    certname: str
    producer_timestamp: datetime
    received_at: datetime
    environment: str | None
    producer: str | None
    content_digest: bytes  # of facts and packages
    shape_digest: bytes
    leaves: list[str]  # of each fact
    listed: list[int]  # places of leaves that are known to move
    shape: Shape | None  # None: this decoder has sent it before
    inventory: Inventory | None  # None: the node reports none
    is_complete: bool  # nothing was left out: what is missing now is a fault

    @property
    def goes_with_others(self) -> bool:
        return self.shape is None and (self.inventory is None or self.inventory.packages is None)


FACTS_WORKS = (Factset,)
