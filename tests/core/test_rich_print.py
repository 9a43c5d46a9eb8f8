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
