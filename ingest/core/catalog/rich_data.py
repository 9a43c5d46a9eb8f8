"""Rich data as PuppetDB's terminus writes it: every value that JSON does not know becomes a string.

Source: Puppet's ``Puppet::Pops::Serialization::ToStringifiedConverter``, and the ``__ptype`` encoding of its
``ToDataConverter``.
"""

from __future__ import annotations

from ingest.core.catalog.model import Json
from ingest.errors import Rejected

TYPE_KEY, VALUE_KEY = "__ptype", "__pvalue"
# What the terminus writes has an object id in it that differs from run to run; this has not.
SENSITIVE = "Sensitive [value redacted]"


# Quotes and backslashes double with each level that a value is printed in: of 565 bytes, nested 23 times, 84 MB were made. What
# Puppet makes of real values is shorter than its JSON.
EXPANSION_MAX = 16
PRINTED_CHARACTERS_MIN = 4096


def stringify(value: Json, source_bytes: int = 0) -> Json:
    """The value with rich data as strings. Plain values are returned as they are, not copied. ``source_bytes`` is the length
    of its JSON, which bounds what may be printed. Raises Rejected."""
    return _Printing(PRINTED_CHARACTERS_MIN + EXPANSION_MAX * source_bytes).stringify(value)


class _Printing:
    """Counts the characters that it makes, on every level, before it makes more of them."""

    def __init__(self, characters_max: int) -> None:
        self._left = characters_max

    def stringify(self, value: Json) -> Json:
        if isinstance(value, dict):
            if TYPE_KEY in value:
                return self._rich(value)
            changed = {key: new for key, item in value.items() if (new := self.stringify(item)) is not item}
            return value | changed if changed else value
        if isinstance(value, list):
            items = [self.stringify(item) for item in value]
            return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
        return value

    def _rich(self, value: dict[str, Json]) -> Json:
        type_ = value[TYPE_KEY]
        if type_ == "Hash":
            flat = value.get(VALUE_KEY) or []
            if not isinstance(flat, list):
                raise Rejected("invalid", "a rich hash is not a list of keys and values")
            return {self._key(k): self.stringify(v) for k, v in zip(flat[0::2], flat[1::2], strict=False)}
        if type_ == "Sensitive":
            return SENSITIVE
        if type_ == "Default":
            return "default"
        if type_ == "Regexp":
            source = str(value.get(VALUE_KEY))
            return "/" + source.replace("\\/", "/").replace("/", "\\/") + "/"
        if VALUE_KEY in value:
            inner = value[VALUE_KEY]
            return inner if isinstance(inner, str) else self.stringify(inner)
        return self._object(str(type_), {k: v for k, v in value.items() if k != TYPE_KEY})

    def _key(self, key: Json) -> str:
        text = self.stringify(key)
        if isinstance(text, str):
            # The reserved keys of the encoding itself.
            return f"reserved key: {text}" if text in (TYPE_KEY, VALUE_KEY) else text
        return "" if text is None else self._print(text, top=True)

    def _object(self, type_: str, members: dict[str, Json]) -> str:
        """An object without a value of its own: a Pcore type, or something with named attributes."""
        if type_.startswith("Pcore::") and type_.endswith("Type"):
            name = type_.removeprefix("Pcore::").removesuffix("Type")
            inner = ", ".join(self._print(self.stringify(item)) for item in members.values())
            return self._made(f"{name}[{inner}]" if inner else name)
        return self._made(f"{type_}({self._print(self.stringify(members))})")

    def _print(self, value: Json, *, top: bool = False) -> str:
        """As Puppet prints a value inside another."""
        if value is None:
            return "undef"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return value if top else self._made("'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'")
        if isinstance(value, list):
            return self._made("[" + ", ".join([self._print(item) for item in value]) + "]")
        if isinstance(value, dict):
            pairs = [f"{self._print(k)} => {self._print(v)}" for k, v in value.items()]
            return self._made("{" + ", ".join(pairs) + "}")
        return str(value)

    def _made(self, text: str) -> str:
        # A text is at most twice what it was made of, which was counted: none gets far beyond the limit.
        self._left -= len(text)
        if self._left < 0:
            raise Rejected(
                "too_large_when_printed", "a rich value becomes far longer than its JSON when it is printed"
            )
        return text
