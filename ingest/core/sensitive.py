"""Finds what a message itself calls a secret, wherever it stands, and takes it out of parsed JSON.

Two things say that a value is secret: a name in ``sensitive_parameters``, and the type Sensitive of rich data in each of
its spellings. What says neither is none that anybody could tell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from ingest.core.catalog.model import Json
from ingest.core.catalog.rich_data import SENSITIVE
from ingest.core.deferred import MAKES, TYPE_KEYS, is_sensitive, printed_secret, without_secret_arguments
from ingest.core.raw_text import bytes_of, plain_surrogates, text_of

_PRINTED_ALONE = re.compile(r"Sensitive\(.*\)\s*", re.DOTALL)
_LETTER = re.compile(r"\\u00[3-7]")
_LETTER_IN_BYTES = re.compile(_LETTER.pattern.encode())
_MAKES_IN_BYTES = MAKES.encode()
_BEFORE_JSON = "\ufeff \t\r\n"  # a text may have been a file
# Members that make a resource what it is; any other may stand in sensitive_parameters.
_MEMBERS = frozenset(
    ("type", "title", "exported", "tags", "kind", "file", "line", "virtual", "aliases", "parameters",
     "sensitive_parameters")
)  # fmt: skip


def may_hold_secrets(text: bytes | str) -> bool:
    """Whether JSON may call something in it a secret. True for much that does not; quick, and never wrong the other way:
    who does not write the word Sensitive, in whatever case its S is, needs escapes of its letters for it, or of what makes
    such an escape in a text within. Those of control characters, which logs are full of, are none. And the terminus prints
    of a type only its name."""
    if isinstance(text, str):
        return "ensitive" in text or MAKES in text or ("\\u00" in text and _LETTER.search(text) is not None)
    if text.find(b"ensitive") >= 0 or text.find(_MAKES_IN_BYTES) >= 0:
        return True
    return text.find(b"\\") >= 0 and text.find(b"\\u00") >= 0 and _LETTER_IN_BYTES.search(text) is not None


def tells_no_secret(resource: bytes, braces: int, parameters: Mapping[str, Json]) -> bool:
    """Whether a resource without unknown members cannot call anything a secret. Rich data is an object, and printed it
    has a brace or is a call: most resources have no braces but their own and their parameters', and no escapes of ASCII.
    ``braces``: how many open in it."""
    is_flat = (
        parameters
        and braces == 2
        and "__ptype" not in parameters
        and "__pcore_type__" not in parameters
        and (resource.find(b"(") < 0 or resource.find(b"ensitive(") < 0)
        and (resource.find(b"\\") < 0 or resource.find(b"\\u00") < 0)
    )
    return bool(is_flat) or not may_hold_secrets(resource)


def conceal(value: Json, raw: bytes, left: Json | Callable[[Json], Json] = SENSITIVE) -> Json:
    """The parsed ``raw`` without secrets; ``left`` stands where one was, or what it makes of the rich value that was one.
    What has none is returned as it is."""
    walk = Concealing(left)
    if raw.count(b"ensitive") > 1 or raw.find(b"\\u00") >= 0 or raw.find(b"__p") >= 0:
        try:
            same, has_twins = parse(raw)
        except (ValueError, RecursionError):
            has_twins = False
        if has_twins:
            value = same
    elif isinstance(value, dict) and (names := value.get("sensitive_parameters")):
        return walk.without(names, value)  # that was the word
    return walk.value(value)


class Concealing:
    """One walk through parsed JSON. ``named`` stands for parameters that are secret by their names; None: they go.
    ``mask`` makes what is kept of a text that looks like a part of a document."""

    def __init__(
        self,
        left: Json | Callable[[Json], Json],
        named: Json = None,
        mask: Callable[[str], str] | None = None,
    ) -> None:
        self.found = 0
        self._left = left
        self._named = named
        self._mask = mask

    def value(self, value: Json) -> Json:
        """The value without secrets."""
        if value is self._left:
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list):
            items = [self.value(item) for item in value]
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        return value

    def _object(self, value: dict[str, Json]) -> Json:
        types = [value[key] for key in TYPE_KEYS if key in value]
        if any(map(is_sensitive, types)):
            return self._hide(value)
        if types:
            if "Hash" in types and any(map(self._is_secret_hash, value.values())):
                return self._hide()
            if "Deferred" in types and (kept := without_secret_arguments(value)) is not None:
                value = value | {"arguments": [*kept, self._hide()]}
        if names := value.get("sensitive_parameters"):
            value = self.without(names, value)
        changed = False
        result: dict[str, Json] = {}
        for key, item in value.items():
            new_key, new = self._text(key), self.value(item)
            changed = changed or new is not item or new_key is not key
            result[new_key] = new
        return result if changed else value

    def _hide(self, secret: Json = None) -> Json:
        self.found += 1
        return self._left(secret) if callable(self._left) else self._left

    def _is_secret_hash(self, flat: Json) -> bool:
        """A hash as a list of keys and values may be one that looks like rich data itself."""
        if not isinstance(flat, list):
            return False
        return any(
            isinstance(key, str) and key in TYPE_KEYS and is_sensitive(item)
            for key, item in zip(flat[0::2], flat[1::2], strict=False)
        )

    def without(self, names: Json, resource: dict[str, Json]) -> dict[str, Json]:
        """The resource without what is named; without any parameter when nobody can tell which are meant."""
        wanted = _spellings(names)
        resource = {
            key: item for key, item in resource.items() if key in _MEMBERS or not _is_among(key, wanted)
        }
        parameters = resource.get("parameters")
        if not parameters:
            return resource
        if not isinstance(parameters, dict):
            self.found += 1
            return resource | {"parameters": {} if self._named is None else self._named}
        hidden = {key: item for key, item in parameters.items() if wanted is None or _is_among(key, wanted)}
        self.found += len(hidden)
        if self._named is None:
            parameters = {key: item for key, item in parameters.items() if key not in hidden}
        else:
            parameters = parameters | dict.fromkeys(hidden, self._named)
        return resource | {"parameters": parameters} | _unnamed(resource, hidden)

    def _text(self, text: str) -> str:
        """A text may be a document itself: old bodies carry resources as JSON in a string; and the terminus prints what
        the agent is to call."""
        if not may_hold_secrets(text):
            return text
        if text.lstrip(_BEFORE_JSON).startswith(("{", "[", '"')):
            return self._document(text)
        return self._hidden_text() if _PRINTED_ALONE.fullmatch(text) else self._printed(text)

    def _printed(self, text: str) -> str:
        """Where a secret's arguments end nobody can tell for sure: nothing behind their beginning is kept."""
        begin = printed_secret(text)
        return text if begin is None else f"{text[:begin]}{self._hidden_text()}"

    def _hidden_text(self) -> str:
        self.found += 1
        return SENSITIVE

    def _document(self, text: str) -> str:
        try:
            document, had_twins = parse(bytes_of(text.lstrip(_BEFORE_JSON)))
        except (ValueError, RecursionError):
            return self._unreadable(text)
        before = self.found
        clean = self.value(document)
        self.found += had_twins  # of which only one is written
        return text if self.found == before else json.dumps(clean, ensure_ascii=False)

    def _unreadable(self, text: str) -> str:
        """In a catalog such a text is a file's contents like any other, or a key that Ruby printed; elsewhere it may be the rest
        of a document."""
        if self._mask is None:
            return self._printed(text)
        self.found += 1
        return self._mask(text)


def _spellings(names: Json) -> frozenset[str] | None:
    """The names as they are compared; None when they are no list of names."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return frozenset(map(_spelling, names))


def _spelling(name: str) -> str:
    return name.strip().lstrip(":").casefold()  # a symbol, as YAML and Ruby's inspect write them


def _is_among(name: str, wanted: frozenset[str] | None) -> bool:
    return wanted is not None and (name in wanted or _spelling(name) in wanted)


def _unnamed(resource: Mapping[str, Json], hidden: Mapping[str, Json]) -> dict[str, Json]:
    """The members that repeat a parameter, without those that are hidden: a namevar is an alias, ``tag`` a tag."""
    found: dict[str, Json] = {}
    for member, names in (("aliases", hidden), ("tags", {"tag"} & hidden.keys())):
        given = resource.get(member)
        if names and isinstance(given, list):
            # To be looked up: ten thousand would be compared with ten thousand.
            secret = {_canonical(item) for name in names for item in _listed(hidden[name])}
            found[member] = [item for item in given if _canonical(item) not in secret]
    return found


def _canonical(value: Json) -> str:
    return value if isinstance(value, str) else "\0" + json.dumps(value, sort_keys=True)


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


# Reading


def parse(body: bytes) -> tuple[Json, bool]:
    """(the JSON value, whether an object in it has a member twice). Of such the last one counts, as for everybody else;
    but what one of them calls secret is secret. Raises ValueError or RecursionError."""
    reader = _Reader()
    return json.loads(text_of(plain_surrogates(body)), object_pairs_hook=reader.object), reader.had_twins


class _Reader:
    def __init__(self) -> None:
        self.had_twins = False

    def object(self, pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        self.had_twins = True
        for key in TYPE_KEYS:
            if secret := next((item for name, item in pairs if name == key and is_sensitive(item)), None):
                found[key] = secret
        names = [item for name, item in pairs if name == "sensitive_parameters" and item]
        if names:
            are_lists = all(isinstance(item, list) for item in names)
            found["sensitive_parameters"] = [name for item in names for name in item] if are_lists else names
        return found
