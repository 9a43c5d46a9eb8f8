"""Reads the file that says which producers may speak for which nodes."""

from __future__ import annotations

import tomllib
from pathlib import Path

from ingest.core.delivery.producers import ProducerRules
from ingest.errors import Misconfigured


def load_producer_rules(file: str) -> ProducerRules | None:
    """The rules of a TOML file with one table ``[producers]``: user = list of patterns of certnames. None without a
    file: anybody may speak for any node. Raises Misconfigured."""
    if not file:
        return None
    try:
        document = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured("--producers-file", f"{file}: {error}") from error
    producers = document.pop("producers", None)
    if document or not isinstance(producers, dict):
        raise Misconfigured("--producers-file", f"{file} must have one table, [producers], and nothing else")
    for user, patterns in producers.items():
        if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
            raise Misconfigured(
                "--producers-file", f"{file}: {user} must be a list of patterns, like ['*.example.com']"
            )
    return ProducerRules(producers)
