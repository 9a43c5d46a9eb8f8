"""A fleet from a seed: which node has which role, and how its catalog changes from run to run; the facts before it and the
report after it.

A node's catalog is a function of its template and four numbers, so what a node must have at the end can be
made again instead of being kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from ingest.capacity.catalogs import (
    FORMS,
    RELEASE_CHANGED,
    RESOURCES_MAX,
    RESOURCES_MIN,
    Template,
    from_directory,
    synthetic,
)
from ingest.errors import Misconfigured
from lab.runs import Run, facts_of, report_of

# What may have happened to a node's catalog since its last run.
CHANGES = ("unchanged", "parameters", "upgrade", "lines")
DEFAULT_MIX = {"unchanged": 0.9, "parameters": 0.07, "upgrade": 0.02, "lines": 0.01}
# What a run sends, in its order.
KINDS = ("facts", "catalog", "report")
ROLES = 12  # of a made-up fleet, as many as the real catalogs have about


class State(msgspec.Struct, frozen=True):
    """What a node's catalog is, beside its template: the same numbers, the same content."""

    tweak: int = 0
    release: int = 0
    shift: int = 0


class Node(msgspec.Struct):
    number: int
    certname: str
    form: str
    template: Template
    state: State = State()
    runs: int = 0
    changed: int = 0  # resources, by the last run


class Fleet:
    """All nodes; every draw comes from the seed, in the order in which nodes run."""

    def __init__(
        self,
        nodes: int,
        seed: int,
        *,
        mix: Mapping[str, float] = DEFAULT_MIX,
        forms: Sequence[str] = ("wire",),
        templates: Path | None = None,
        resources: int | None = None,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        if nodes < 1:
            raise Misconfigured("--nodes", f"{nodes} is no fleet: at least one node")
        if resources is not None and not RESOURCES_MIN <= resources <= RESOURCES_MAX:
            raise Misconfigured(
                "--resources",
                f"{resources} is not between {RESOURCES_MIN} and {RESOURCES_MAX}, as in real catalogs",
            )
        if resources is not None and templates is not None:
            raise Misconfigured(
                "--resources", "templates have the size that they have: leave one of the two out"
            )
        self.mix = dict(mix)
        self.kinds = tuple(kinds)
        self._seed = seed
        self._chance = random.Random(f"{seed} changes")
        self._releases = 0
        of_form = {
            form: synthetic(ROLES, seed, form, resources)
            if templates is None
            else from_directory(templates, seed, form)
            for form in forms
        }
        self.nodes = []
        for number in range(nodes):
            form = forms[number % len(forms)]
            roles = of_form[form]
            role = roles[number // len(forms) % len(roles)]
            certname = f"{role.name.lower()}-{number:05d}.example.com"
            self.nodes.append(Node(number, certname, form, role))

    @property
    def mean_bytes(self) -> float:
        """Of a catalog, before its holes are filled."""
        return sum(node.template.bytes for node in self.nodes) / len(self.nodes)

    def change(self, node: Node, forced: str | None = None) -> str:
        """Lets the node's catalog change as it may between two runs; returns how."""
        node.runs += 1
        node.changed = 0
        if node.runs == 1:
            return "first"
        kind = forced or self._chance.choices(tuple(self.mix), tuple(self.mix.values()))[0]
        state = node.state
        if kind == "parameters":
            node.state = msgspec.structs.replace(state, tweak=state.tweak + 1)
        elif kind == "upgrade":
            # A release reaches many nodes: a node that upgrades goes to the newest, or makes a new one.
            self._releases = max(self._releases, state.release + 1)
            node.changed = RELEASE_CHANGED
            node.state = msgspec.structs.replace(state, release=self._releases)
        elif kind == "lines":
            node.state = msgspec.structs.replace(state, shift=state.shift + 1)
        return kind

    def next_round(self, at: datetime) -> list[bytes]:
        """The bodies of the next run of node after node, all at that time."""
        bodies = []
        for node in self.nodes:
            self.change(node)
            bodies += [b"".join(parts) for _, parts in self.messages(node, at)]
        return bodies

    def messages(self, node: Node, at: datetime) -> Iterator[tuple[str, list[bytes]]]:
        """The kind and the body of each message of the node's run as it is now, in pieces."""
        for kind in self.kinds:
            yield kind, self.parts(node, at) if kind == "catalog" else [self.other(kind, node, at)]

    def other(self, kind: str, node: Node, at: datetime) -> bytes:
        """The run's facts or report. A report has changes when the release was another: nothing else that may change in a
        catalog here is seen on the node."""
        run = Run(node.certname, node.number, node.runs, at, self._seed)
        if kind == "facts":
            return facts_of(run)
        return report_of(run, changed=node.changed, release=node.state.release)

    def body(self, node: Node, at: datetime) -> bytes:
        """The node's catalog as it is now, compiled at that time."""
        return b"".join(self.parts(node, at))

    def parts(self, node: Node, at: datetime) -> list[bytes]:
        """What ``body`` joins."""
        return node.template.parts(node.certname, at, **msgspec.structs.asdict(node.state))


def headers(node: Node, at: datetime) -> dict[str, str]:
    """What a producer says beside the body; a native or legacy catalog has no timestamp of its own."""
    return {
        "certname": node.certname,
        "producer_timestamp": at.isoformat(),
        "producer": "puppet.example.com",
        "content-type": "application/json",
    }


def parse_mix(text: str) -> dict[str, float]:
    """``unchanged=0.9,parameters=0.1`` as shares of one. Raises Misconfigured."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        name = name.strip()
        if name not in CHANGES:
            raise Misconfigured("--mix", f"{name!r} is none of {', '.join(CHANGES)}")
        try:
            found[name] = float(share)
        except ValueError:
            raise Misconfigured("--mix", f"the share of {name} is {share!r}, no number") from None
        if not 0 <= found[name] <= 1:
            raise Misconfigured("--mix", f"the share of {name} is {share}, not between 0 and 1")
    if abs(sum(found.values()) - 1) > 1e-6:
        raise Misconfigured("--mix", f"the shares make {sum(found.values()):g}, not 1")
    return found


def parse_kinds(text: str) -> tuple[str, ...]:
    """``facts,catalog``, in the order of a run. Raises Misconfigured."""
    wanted = {part.strip() for part in text.split(",")}
    if unknown := sorted(wanted - set(KINDS)):
        raise Misconfigured("--kinds", f"{unknown[0]!r} is none of {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in wanted)


def parse_forms(text: str) -> tuple[str, ...]:
    """``wire,native``. Raises Misconfigured."""
    forms = tuple(part.strip() for part in text.split(","))
    for form in forms:
        if form not in FORMS:
            raise Misconfigured("--formats", f"{form!r} is none of {', '.join(FORMS)}")
    return forms
