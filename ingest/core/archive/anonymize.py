"""Replaces names and values in payloads, the same one always by the same, so that what belonged together still does.

What takes a value's place is made from it with a key that nobody keeps: no table of what was replaced grows, and nothing leads
back. Which values are replaced is a profile's matter (``profiles.py``).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import Any

from ingest.core.archive.members import encode, plain
from ingest.core.archive.profiles import PROFILES_OF_RULES, is_replaced

PROFILES = ("none", "low", "moderate", "full")
_REFERENCE = re.compile(r"([^\[]+)\[(.+)\]", re.DOTALL)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LENGTH_MIN = 10  # shorter ones could be mistaken for each other
_LENGTH_MAX = 10_000
Context = dict[str, str | None]


class Anonymizer:
    """Of one archive."""

    def __init__(self, profile: str, key: bytes) -> None:
        self._rules = PROFILES_OF_RULES[profile]
        self._key = key

    def replace(self, folder: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of a command of that folder, with its names and values replaced."""
        found: dict[str, Any] = plain(dict(payload))
        node: Context = {"node": str(found.get("certname"))}
        for name, kind in (
            ("certname", "node"),
            ("producer", "node"),
            ("environment", "environment"),
            ("transaction_uuid", "transaction_uuid"),
        ):
            if found.get(name) is not None:
                found[name] = self._leaf(found[name], kind, node)
        match folder:
            case "catalogs":
                found["resources"] = [self._resource(one, node) for one in found["resources"]]
                found["edges"] = [self._edge(one, node) for one in found["edges"]]
            case "facts":
                found["values"] = self._facts(found["values"], node)
                if "package_inventory" in found:
                    found["package_inventory"] = [
                        [self._leaf(part, "package", node) for part in one]
                        for one in found["package_inventory"]
                    ]
            case "reports":
                self._report(found, node)
            case "catalog_inputs":
                found["inputs"] = [
                    [
                        self._leaf(type_, "catalog-input-type", node),
                        self._leaf(name, "catalog-input-value", node),
                    ]
                    for type_, name in found["inputs"]
                ]
        return found

    def _resource(self, resource: dict[str, Any], node: Context) -> dict[str, Any]:
        context = node | {"type": resource["type"], "title": resource["title"]}
        found = {name: resource[name] for name in ("exported",) if name in resource}
        found |= {
            "type": self._leaf(resource["type"], "type", context),
            "title": self._leaf(resource["title"], "title", context),
            "tags": sorted({self._tag(tag, node) for tag in resource["tags"]}),
            "parameters": dict(
                self._parameter(name, value, context) for name, value in resource["parameters"].items()
            ),
        }
        for name in ("file", "line"):
            if resource.get(name) is not None:
                found[name] = self._leaf(resource[name], name, context)
        return found

    def _parameter(self, name: str, value: Any, context: Context) -> tuple[str, Any]:
        within = context | {"parameter-name": name}
        if name in ("stage", "tag", "alias"):
            return name, _each(value, lambda one: self._leaf(one, "title", within))
        if name in ("require", "before", "notify", "subscribe"):
            return name, _each(value, lambda one: self._reference(one, context))
        return self._leaf(name, "parameter-name", within), self._leaf(value, "parameter-value", within)

    def _edge(self, edge: dict[str, Any], node: Context) -> dict[str, Any]:
        found = dict(edge)
        for end in ("source", "target"):
            of = node | {"type": edge[end]["type"], "title": edge[end]["title"]}
            found[end] = {name: self._leaf(edge[end][name], name, of) for name in ("type", "title")}
        return found

    def _reference(self, text: Any, context: Context) -> Any:
        found = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            return self._leaf(text, "title", context)
        of = {"node": context.get("node"), "type": found[1], "title": found[2]}
        return f"{self._leaf(found[1], 'type', of)}[{self._leaf(found[2], 'title', of)}]"

    def _tag(self, tag: str, node: Context) -> str:
        """Most are the names of types and classes in lower case."""
        type_ = "::".join(part.capitalize() for part in tag.split("::"))
        return str(self._leaf(type_, "type", node | {"type": type_})).lower()

    def _facts(self, values: dict[str, Any], node: Context) -> dict[str, Any]:
        found = {}
        for name, value in values.items():
            context = node | {"fact-name": name}
            new = (
                self._facts(value, node)
                if isinstance(value, dict)
                else self._leaf(value, "fact-value", context)
            )
            found[self._leaf(name, "fact-name", context)] = new
        return found

    def _report(self, report: dict[str, Any], node: Context) -> None:
        for resource in report["resources"]:
            self._reported(resource, node)
        for metric in report["metrics"] or ():
            if metric["category"] == "time":
                metric["name"] = self._tag(metric["name"], node)
        for log in report["logs"] or ():
            if log["message"] is not None and is_replaced(self._rules, "text", node):
                log["message"] = "?" * len(log["message"])
            log["tags"] = [self._tag(tag, node) for tag in log["tags"] or ()]
            log["source"] = self._source(log["source"], node)
            for name in ("file", "line"):
                log[name] = self._leaf(log[name], name, node)

    def _reported(self, resource: dict[str, Any], node: Context) -> None:
        type_, title = resource["resource_type"], resource["resource_title"]
        context = node | {"type": type_, "title": title}
        resource["resource_type"] = self._leaf(type_, "type", context)
        resource["resource_title"] = self._leaf(title, "title", context)
        for name in ("file", "line"):
            resource[name] = self._leaf(resource[name], name, context)
        if resource["containment_path"] is not None:
            resource["containment_path"] = [
                self._reference(one, context) if "[" in one
                else one and self._leaf(one, "title", context | {"type": "Class"})
                for one in resource["containment_path"]
            ]  # fmt: skip
        for event in resource["events"]:
            within = context | {"parameter-name": event["property"]}
            event["message"] = self._leaf(event["message"], "message", within)
            for name in ("new_value", "old_value"):
                event[name] = self._leaf(event[name], "parameter-value", within)
            for name in ("name", "property"):
                event[name] = self._leaf(event[name], "parameter-name", within)

    def _source(self, source: str | None, node: Context) -> str | None:
        """Words with a capital are types, what is in brackets is a title or parameter, other words are titles."""
        if source is None:
            return None
        return re.sub(
            r"[A-Z]\w+|\w+",
            lambda found: str(
                self._leaf(found[0], "type" if found[0][:1].isupper() else "title", node | {"type": found[0]})
            ),
            source,
        )

    def _leaf(self, value: Any, kind: str, context: Context) -> Any:
        if value is None or not is_replaced(self._rules, kind, context):
            return value
        match kind:
            case "node":
                return f"{self._number('node', value):032x}"[:16] + ".example.com"
            case "type":
                return self._letters("type", value).capitalize()
            case "file":
                return f"/etc/puppetlabs/code/{self._letters('file', value)}.pp"
            case "transaction_uuid":
                return str(uuid.UUID(int=self._number("uuid", value)))
            case "parameter-value" | "fact-value" | "line" | "package":
                return self._value(value)
        return self._letters(kind, value)

    def _value(self, value: Any) -> Any:
        match value:
            case None:
                return None
            case bool():
                return bool(self._number("boolean", value) & 1)
            case int():
                return self._number("integer", value) % max(abs(value), 20)
            case float():
                return self._number("float", value) % 1_000_000 / 1_000_000 * max(abs(value), 1.0)
            case list():
                return [self._value(one) for one in value]
            case dict():
                return {self._letters("key", name): self._value(one) for name, one in value.items()}
        return self._letters("value", value)

    def _letters(self, kind: str, value: Any) -> str:
        length = min(_LENGTH_MAX, max(_LENGTH_MIN, len(str(value))))
        number, found = self._number(kind, value), []
        for _ in range(min(length, 24)):  # 24 letters of 26 are in 128 bits
            number, letter = divmod(number, len(_LETTERS))
            found.append(_LETTERS[letter])
        return ("".join(found) * (length // len(found) + 1))[:length]

    def _number(self, kind: str, value: Any) -> int:
        text = kind.encode() + b"\0" + encode(value)
        return int.from_bytes(hashlib.blake2b(text, key=self._key, digest_size=16).digest(), "big")


def _each(value: Any, replace: Any) -> Any:
    return [replace(one) for one in value] if isinstance(value, list) else replace(value)
