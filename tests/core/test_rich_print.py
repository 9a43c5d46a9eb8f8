"""Rich data is printed as PuppetDB's terminus prints it: recorded from Puppet 7.23 and the terminus 7.12.1."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ingest.core.catalog.normalise import normalise_resource

# (the value in Puppet's language, in native JSON, what the terminus sends); tests/puppet/test_rich_values.py compares afresh.
RECORDED: list[tuple[str, Any, Any]] = json.loads(
    gzip.decompress((Path(__file__).parent / "rich_values.json.gz").read_bytes())
)


def test_enough_was_recorded() -> None:
    """Every data type, alone, in Deferred, as a key and in one."""
    assert len(RECORDED) > 600


@pytest.mark.parametrize("start", range(0, len(RECORDED), 50))
def test_a_value_is_printed_as_the_terminus_printed_it(start: int) -> None:
    """The value in Puppet's language names what failed."""
    for value, native, theirs in RECORDED[start : start + 50]:
        raw = json.dumps({"type": "Notify", "title": "n", "parameters": {"message": native}}).encode()
        ours = normalise_resource(raw, "native").resource.parameters["message"]
        assert json.dumps(ours) == json.dumps(theirs), value


def printed(value: Any) -> Any:
    raw = json.dumps({"type": "Notify", "title": "n", "parameters": {"message": value}}).encode()
    return normalise_resource(raw, "native").resource.parameters["message"]


def type_of(name: str, **members: Any) -> dict[str, Any]:
    return {"__ptype": f"Pcore::{name}Type"} | members


@pytest.mark.parametrize("spelt", ["type", "element_type"])
@pytest.mark.parametrize("resource", ["my::thing", "My::Thing"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Array", "Array[My::Thing]"),
        ("Optional", "Optional[My::Thing]"),
        ("Iterable", "Iterable[My::Thing]"),
    ],
)
def test_a_type_is_the_same_however_it_is_spelt(name: str, text: str, spelt: str, resource: str) -> None:
    """What is in it under either name that it has had, and a resource's type with capitals."""
    inner = type_of("Resource", type_name=resource)
    assert printed(type_of(name, **{spelt: inner})) == text
