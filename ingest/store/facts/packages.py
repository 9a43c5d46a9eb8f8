"""Package inventories: sets that nodes share, and for each node what it has more and less than its set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ingest.core import pgcopy
from ingest.core.facts.inventory import package_digest
from ingest.core.facts.work import Factset, Package
from ingest.store.facts.shared_content import FactContents, Fields, list_field
from ingest.store.parameters import column_parameters
from ingest.store.queries import query
from ingest.store.session import Session

# A node that differs from its set in more than this gets another one: a set of 1000 packages takes 4 KB.
DELTA_SHARE_MAX = 1 / 8
_OIDS = (pgcopy.INT4_OID, pgcopy.INT4_OID, pgcopy.BYTEA_OID, pgcopy.TEXT_OID, pgcopy.TEXT_OID)


class PackageSet(NamedTuple):
    id: int
    packages: frozenset[int]


class Plan(NamedTuple):
    """What is to be written."""

    rows: list[Fields]
    emptied: list[int]  # nodes that report no packages any more
    missing: set[int]  # deliveries whose packages are nowhere to be found


class Packages:
    """As one writer knows them."""

    def __init__(self, entries_max: int) -> None:
        self._versions = FactContents("package_versions", entries_max)
        self._sets = FactContents("package_sets", entries_max // 16)
        self._last: PackageSet | None = None  # that was met: the next node may be like it
        self._fresh: PackageSet | None = None

    def plan(
        self, session: Session, nodes: Sequence[tuple[Factset, int, bytes | None]], batch: Iterable[Factset]
    ) -> Plan:
        """``nodes``: (factset, node id, digest of what is stored). Inserts the content that is new."""
        emptied = [node_id for f, node_id, digest in nodes if f.inventory is None and digest is not None]
        changed = [
            (f.delivery, f.inventory.digest, node_id)
            for f, node_id, digest in nodes
            if f.inventory is not None and f.inventory.digest != digest
        ]
        if not changed:
            return Plan([], emptied, set())
        brought = {
            f.inventory.digest: f.inventory.packages
            for f in batch
            if f.inventory is not None and f.inventory.packages is not None
        }
        whole = self._sets.find(session, {digest for _, digest, _ in changed})
        rows, missing = [], set()
        stored = self._stored(session, [node_id for *_, node_id in changed])
        ids = self._ids(session, [brought[d] for _, d, _ in changed if d in brought and d not in whole])
        for delivery, digest, node_id in changed:
            if digest in whole:
                rows.append(_row(node_id, whole[digest], digest, (), ()))
            elif digest in brought:
                wanted = frozenset(ids[package] for package in brought[digest] or ())
                set_ = self._like(session, wanted, digest, stored.get(node_id))
                rows.append(_row(node_id, set_.id, digest, wanted - set_.packages, set_.packages - wanted))
            else:
                missing.add(delivery)
        return Plan(rows, emptied, missing)

    def write(self, session: Session, plan: Plan) -> None:
        if plan.rows:
            session.execute("put_node_packages", column_parameters(_OIDS, plan.rows))
        if plan.emptied:
            session.execute("delete_node_packages", [plan.emptied])

    def committed(self) -> None:
        self._versions.committed()
        self._sets.committed()
        self._last, self._fresh = self._fresh or self._last, None

    def rolled_back(self) -> None:
        self._versions.rolled_back()
        self._sets.rolled_back()
        self._fresh = None

    def forget(self) -> None:
        self._versions.forget()
        self._sets.forget()
        self._last = self._fresh = None

    def _stored(self, session: Session, node_ids: list[int]) -> dict[int, PackageSet]:
        session.cursor.execute(query("read_node_packages"), [node_ids], binary=True)
        return {node_id: PackageSet(set_id, frozenset(ids)) for node_id, set_id, ids in session.cursor}

    def _ids(self, session: Session, several: Iterable[list[Package] | None]) -> dict[Package, int]:
        digests = {package: package_digest(package) for packages in several for package in packages or ()}
        if not digests:
            return {}
        rows = {digest: _version_row(digest, package) for package, digest in digests.items()}
        ids = self._versions.resolve(session, rows)
        return {package: ids[digest] for package, digest in digests.items()}

    def _like(
        self, session: Session, wanted: frozenset[int], digest: bytes, stored: PackageSet | None
    ) -> PackageSet:
        """A set that is much like it, or a new one."""
        for known in (stored, self._fresh or self._last):
            if known is not None and len(known.packages ^ wanted) <= DELTA_SHARE_MAX * len(wanted):
                return known
        ids = self._sets.resolve(session, {digest: _set_row(digest, wanted)})
        self._fresh = PackageSet(ids[digest], wanted)
        return self._fresh


def _row(node_id: int, set_id: int, digest: bytes, added: Iterable[int], removed: Iterable[int]) -> Fields:
    return (
        pgcopy.int4(node_id),
        pgcopy.int4(set_id),
        pgcopy.bytea(digest),
        list_field(sorted(added)),
        list_field(sorted(removed)),
    )


def _version_row(digest: bytes, package: Package) -> Callable[[], Fields]:
    return lambda: (
        pgcopy.bytea(digest),
        pgcopy.text(package.name),
        pgcopy.text(package.version),
        pgcopy.text(package.provider),
    )


def _set_row(digest: bytes, ids: frozenset[int]) -> Callable[[], Fields]:
    return lambda: (pgcopy.bytea(digest), list_field(sorted(ids)))
