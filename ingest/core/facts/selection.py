"""Facts chosen by their paths: what is not to be stored at all, and what is known to change with every run.

A pattern is a path as people write it, ``mountpoints.*.available_bytes``: names with dots between them, ``*`` and ``?``
for any part of one name, a name with dots in quotes (``"a.b".c``), the number of an array's element. What lies below a
path that is named is meant, too. ``~REGEX`` is searched for in the path with dots, of each fact and of each of its parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import translate
from typing import Any, NamedTuple

from ingest.core.catalog.model import Json
from ingest.errors import Misconfigured

_PART = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."]+)')
# What Facter and the modules of everybody report that never stays as it is.
ALWAYS_MOVING = (
    "uptime*", "system_uptime", "load_averages", "memory.*.available*", "memory.*.used*", "memory.*.capacity",
    "memoryfree*", "swapfree*", "mountpoints.*.available*", "mountpoints.*.used*", "mountpoints.*.capacity",
)  # fmt: skip


Parts = tuple[re.Pattern[str], ...]  # what each name of a path must be


class Selection(NamedTuple):
    """Patterns, taken apart."""

    paths: tuple[Parts, ...] = ()
    regexes: tuple[re.Pattern[str], ...] = ()

    def without(self, name: str, value: Json) -> tuple[bool, Json]:
        """(whether anything of the fact is left, what is left of it)."""
        is_meant, below = self._step(self.paths, name, name)
        return (False, None) if is_meant else (True, self._without(below, name, value))

    def leaves(self, name: str, value: Json) -> list[int]:
        """The numbers of the leaves that are meant, counted as ``leaves.split`` counts them."""
        is_meant, below = self._step(self.paths, name, name)
        return [at for at, is_meant in enumerate(self._walk(below, name, value, is_meant)) if is_meant]

    def may_mean(self, name: str) -> bool:
        """Whether anything in the fact of that name can be meant."""
        return bool(self.regexes) or any(parts[0].match(name) for parts in self.paths)

    def _step(self, paths: Sequence[Parts], name: str, path: str) -> tuple[bool, Sequence[Parts]]:
        """(whether all of what has that name is meant, which patterns may mean a part of it)."""
        below = [parts[1:] for parts in paths if parts[0].match(name)]
        is_meant = () in below or any(regex.search(path) for regex in self.regexes)
        return is_meant, () if is_meant else below

    def _without(self, paths: Sequence[Parts], path: str, value: Json) -> Json:
        if not paths and not self.regexes:
            return value
        if not isinstance(value, dict | list):
            return value
        items = value.items() if isinstance(value, dict) else enumerate(value)
        kept: list[tuple[Any, Json]] = []
        for key, item in items:
            part = f"{path}.{key}"
            is_meant, below = self._step(paths, str(key), part)
            if not is_meant:
                kept.append((key, self._without(below, part, item)))
        return dict(kept) if isinstance(value, dict) else [item for _, item in kept]

    def _walk(self, paths: Sequence[Parts], path: str, value: Json, is_meant: bool) -> Iterator[bool]:
        if not isinstance(value, dict | list):
            yield is_meant
            return
        for key in sorted(value) if isinstance(value, dict) else range(len(value)):
            part = f"{path}.{key}"
            its, below = (True, ()) if is_meant else self._step(paths, str(key), part)
            yield from self._walk(below, part, value[key], its)


def selection(patterns: Iterable[str], setting: str) -> Selection:
    """Raises Misconfigured, naming the setting and the pattern."""
    paths: list[Parts] = []
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


def _parts(pattern: str) -> Parts:
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
