"""Reads catalogs back: one node's whole catalog, and what a collector would get."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from ingest.core.catalog.model import RELATIONSHIPS, Catalog, Edge, Header, Json, Ref, Resource
from ingest.errors import Refused
from ingest.store.connection import Connection, translate_errors
from ingest.store.queries import query

TAG_IDS = 4  # the column of read_catalog_resources


def read_catalog(connection: Connection, certname: str) -> Catalog:
    """The stored catalog of a node, equal to the canonical wire form of the one that arrived.

    Raises Refused for a node of which nothing is stored.
    """
    with translate_errors(), connection.transaction():
        connection.execute(query("one_snapshot"))  # a writer may come between two statements
        row: Any = connection.execute(query("read_catalog"), [certname]).fetchone()
        if row is None:
            raise Refused(f"no catalog of {certname} is stored")
        node_id, name, timestamp, version, environment, producer, transaction, catalog, code, job = row
        rows: Any = connection.execute(query("read_catalog_resources"), [node_id], binary=True).fetchall()
        edges: Any = connection.execute(query("read_catalog_edges"), [node_id]).fetchone()
        tag_sets = {tuple(columns[TAG_IDS]) for columns in rows}
        ids = sorted(set().union(*tag_sets))
        names: Any = dict(connection.execute(query("read_tag_names"), [ids]).fetchall())  # type: ignore[arg-type]
    tags = {tag_ids: tuple(sorted(names[id_] for id_ in tag_ids)) for tag_ids in tag_sets}
    resources = tuple(_resource(tags, *columns) for columns in rows)
    refs = [resource.ref for resource in resources]
    header = Header(name, timestamp, version, environment, producer, transaction, catalog, code, job)
    return Catalog(header, resources, tuple(_edges(refs, *edges)))


def exported_resources(
    connection: Connection,
    type_: str,
    *,
    tags: Sequence[str] = (),
    title: str | None = None,
    parameters: Mapping[str, Json] | None = None,
    except_certname: str | None = None,
) -> Iterator[dict[str, Json]]:
    """Exported resources of active nodes as JSON objects, ordered by certname and title."""
    wanted = {
        "type": type_,
        "title": title,
        "tags": [tag.lower() for tag in tags] or None,
        "parameters": Jsonb(parameters) if parameters else None,
        "except_certname": except_certname,
    }
    with translate_errors(), connection.cursor() as cursor:
        # Unprepared: a plan that does not know which filters are asked for serves none of them.
        cursor.execute(query("read_exported"), wanted, prepare=False)
        rows: Any = cursor
        for certname, environment, type_, title_, tags_, values, file, line, exact in rows:
            whole = {} if exact is None else json.loads(exact)
            yield {
                "certname": certname,
                "environment": environment,
                "type": type_,
                "title": whole.get("title", title_),
                "tags": tags_,
                "parameters": whole.get("parameters", values),
                "file": file,
                "line": line,
            }


def who_has(connection: Connection, type_: str, title: str) -> Iterator[dict[str, Json]]:
    """The active nodes that have this resource, as JSON objects ordered by certname."""
    with translate_errors(), connection.cursor() as cursor:
        cursor.execute(query("read_who_has"), {"type": type_, "title": title}, prepare=False)
        rows: Any = cursor
        for certname, environment, type_, title, exported, file, line in rows:
            yield {
                "certname": certname,
                "environment": environment,
                "type": type_,
                "title": title,
                "exported": exported,
                "file": file,
                "line": line,
            }


def _resource(
    tags: Mapping[tuple[int, ...], tuple[str, ...]],
    type_: str,
    title: str,
    exported: bool,
    kind: str | None,
    tag_ids: list[int],
    parameters: str,
    exact: bytes | None,
    file: str | None,
    line: int | None,
    file_exact: bytes | None,
) -> Resource:
    if file_exact is not None:
        file = bytes(file_exact).decode("utf-8", "surrogatepass")
    if exact is not None:
        whole = json.loads(exact)
        return Resource(
            whole["type"], whole["title"], exported, tuple(whole["tags"]), whole["parameters"], whole["kind"],
            file, line, whole["extra"],
        )  # fmt: skip
    return Resource(
        type_, title, exported, tags[tuple(tag_ids)], msgspec.json.decode(parameters), kind, file, line
    )


def _edges(
    refs: Sequence[Ref], sources: list[int], targets: list[int], relationships: list[int]
) -> list[Edge]:
    return sorted(
        Edge(refs[source], refs[target], RELATIONSHIPS[code])
        for source, target, code in zip(sources, targets, relationships, strict=True)
    )


StoredDigest = tuple[str, bytes]  # certname, raw digest


def stored_digests(connection: Connection, since: str | None = None) -> list[StoredDigest]:
    """Of every catalog, or of those whose content was stored since then (``written_until``)."""
    with translate_errors(), connection.cursor(binary=True) as cursor:
        cursor.execute(query("stored_digests"), [since or "0"])
        return [(str(certname), bytes(digest)) for certname, digest in cursor]  # type: ignore[call-overload]


def written_until(connection: Connection) -> str:
    """The oldest transaction that may not be seen whole yet."""
    with translate_errors():
        row = connection.execute(query("snapshot_xmin")).fetchone()
    assert row is not None
    return str(row[0])
