"""Facts chosen by their paths: what is not to be stored at all, and what is known to change with every run.

A pattern is a path as people write it, ``mountpoints.*.available_bytes``: names with dots between them, ``*`` and ``?``
for any part of one name, a name with dots in quotes (``"a.b".c``), the number of an array's element. What lies below a
path that is named is meant, too. ``~REGEX`` is searched for in the path with dots, of each fact and of each of its parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from typing import NamedTuple

from ingest.core.catalog.model import Json
from ingest.errors import Misconfigured

_PART = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."]+)')
# What Facter and the modules of everybody report that never stays as it is.
ALWAYS_MOVING = (
    "uptime*", "system_uptime", "load_averages", "memory.*.available*", "memory.*.used*", "memory.*.capacity",
    "memoryfree*", "swapfree*", "mountpoints.*.available*", "mountpoints.*.used*", "mountpoints.*.capacity",
)  # fmt: skip


class Selection(NamedTuple):
    """Patterns, taken apart."""

    paths: tuple[tuple[re.Pattern[str], ...], ...] = ()
    regexes: tuple[re.Pattern[str], ...] = ()

    def without(self, name: str, value: Json) -> tuple[bool, Json]:
        """(whether anything of the fact is left, what is left of it)."""
        return self._without((name,), value)

    def leaves(self, name: str, value: Json) -> list[int]:
        """The numbers of the leaves that are meant, counted as ``leaves.split`` counts them."""
        return [at for at, is_meant in enumerate(self._walk((name,), value, is_meant=False)) if is_meant]

    def may_mean(self, name: str) -> bool:
        """Whether anything in the fact of that name can be meant."""
        return bool(self.regexes) or any(parts[0].match(name) for parts in self.paths)

    def _means(self, path: tuple[str, ...]) -> bool:
        if any(
            len(parts) == len(path) and all(part.match(at) for part, at in zip(parts, path, strict=True))
            for parts in self.paths
        ):
            return True
        return bool(self.regexes) and any(regex.search(".".join(path)) for regex in self.regexes)

    def _without(self, path: tuple[str, ...], value: Json) -> tuple[bool, Json]:
        if self._means(path):
            return False, None
        if isinstance(value, dict):
            kept = {key: self._without((*path, key), item) for key, item in value.items()}
            return True, {key: item for key, (is_left, item) in kept.items() if is_left}
        if isinstance(value, list):
            items = [self._without((*path, str(at)), item) for at, item in enumerate(value)]
            return True, [item for is_left, item in items if is_left]
        return True, value

    def _walk(self, path: tuple[str, ...], value: Json, *, is_meant: bool) -> Iterator[bool]:
        is_meant = is_meant or self._means(path)
        if isinstance(value, dict):
            for key in sorted(value):
                yield from self._walk((*path, key), value[key], is_meant=is_meant)
        elif isinstance(value, list):
            for at, item in enumerate(value):
                yield from self._walk((*path, str(at)), item, is_meant=is_meant)
        else:
            yield is_meant


def selection(patterns: Iterable[str], setting: str) -> Selection:
    """Raises Misconfigured, naming the setting and the pattern."""
    paths: list[tuple[re.Pattern[str], ...]] = []
    regexes: list[re.Pattern[str]] = []
    for pattern in filter(None, map(str.strip, patterns)):
        try:
            if pattern.startswith("~"):
                regexes.append(re.compile(pattern[1:]))
            else:
                paths.append(_parts(pattern))
        except (ValueError, re.error) as error:
            raise Misconfigured(setting, f"{pattern[:100]!r} is not a pattern of facts: {error}") from error
    return Selection(tuple(paths), tuple(regexes))


def patterns_of(text: str) -> tuple[str, ...]:
    """The patterns of a setting's value: a line each, or on a single line separated by spaces. Names and regular expressions
    have commas."""
    return tuple(text.splitlines() if "\n" in text else text.split())


def _parts(pattern: str) -> tuple[re.Pattern[str], ...]:
    parts: list[re.Pattern[str]] = []
    at = 0
    while True:
        found = _PART.match(pattern, at)
        if found is None:
            raise ValueError("a name is missing")
        quoted = found[1]
        name = (
            re.escape(re.sub(r"\\(.)", r"\1", quoted)) + r"\Z" if quoted is not None else translate(found[2])
        )
        parts.append(re.compile(name, re.DOTALL))
        at = found.end()
        if at == len(pattern):
            return tuple(parts)
        if pattern[at] != ".":
            raise ValueError("a dot is missing")
        at += 1
