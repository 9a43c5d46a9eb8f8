"""The members of what stands for a type: which type one is, and what it says."""

from __future__ import annotations

from ingest.core.catalog.model import Json
from ingest.core.catalog.rich_value import Rich, rich_value


def type_in(value: Json) -> Rich | None:
    found = rich_value(value) if isinstance(value, dict) else None
    return found if found and found.data_type else None


def is_type(value: Json, name: str) -> bool:
    found = type_in(value)
    return found is not None and found.data_type == name


def is_any(value: Json) -> bool:
    return value is None or is_type(value, "Any")


def literal(type_: Json) -> Json:
    """The string that is a type's only value, else the type."""
    if is_type(type_, "String"):
        value = type_.get("size_type_or_value")
        return value if isinstance(value, str) else type_
    return type_


def listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [] if value is None else [value]


def text_of(value: Json) -> str:
    return value if isinstance(value, str) else ""
