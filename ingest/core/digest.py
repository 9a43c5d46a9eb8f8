"""The digest by which equal resources of different nodes are recognised."""

from __future__ import annotations

import hashlib

from ingest.core.model import Resource
from ingest.core.wire import canonical_json
from ingest.core.work import DIGEST_BYTES


def content_digest(resource: Resource) -> bytes:
    """SHA-256, cut to 160 bits, over everything but the position: nobody can find two contents with one digest,
    so a node cannot put its resource in another's place."""
    content = canonical_json(
        [
            resource.type,
            resource.title,
            resource.exported,
            resource.kind,
            resource.tags,
            resource.parameters,
            resource.extra,
        ]
    )
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]
