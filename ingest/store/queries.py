"""Named SQL statements: each ``-- name: NAME`` in ``sql/*.sql`` starts one, Python calls it by that name."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from psycopg.sql import SQL

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def query(name: str) -> SQL:
    """The statement of that name. Raises KeyError for a name that no file has."""
    return _all()[name]


@cache
def _all() -> dict[str, SQL]:
    found: dict[str, SQL] = {}
    for file in sorted(files(__package__).joinpath("sql").iterdir(), key=lambda f: f.name):
        parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            if name in found:
                raise KeyError(f"two statements are named {name}")
            found[name] = SQL(text.strip())
    return found
