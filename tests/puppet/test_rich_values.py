"""A value of any data type in any place is printed as PuppetDB's terminus prints it: compiled by Puppet, compared one by one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.normalise import normalise, normalise_resource
from tests.puppet import temper
from tests.puppet.rich_values import DROPPED, MADE_SECRETS, PREAMBLE, SECRET, SECRETS, Maker, in_every_place
from tests.puppet.site import Site, messages

TERMINUS = Path("/usr/lib/ruby/vendor_ruby/puppet/indirector/catalog/puppetdb.rb")
VALUES_AT_ONCE = 300  # in one catalog
MADE_UP = int(os.environ.get("INGEST_TEST_RICH_VALUES", "600"))
AT = datetime(2026, 1, 1, tzinfo=UTC)

Printed = dict[str, tuple[Any, Any]]  # by value: ours, theirs


@pytest.fixture
def compiled(site: Site) -> Iterator[Callable[..., Printed]]:
    """Compiles values, each as a parameter of a resource; gives what the engine makes of the native body, and what the
    terminus sends."""
    if not TERMINUS.exists():
        pytest.skip("no oracle: apt-get install puppet-terminus-puppetdb")
    with temper.broker_that(None) as away:
        site.configure(broker=away, flush_timeout_s="0")
        site.start()

        def printed(values: list[str], *, in_clear: bool = False) -> Printed:
            found: Printed = {}
            for start in range(0, len(values), VALUES_AT_ONCE):
                some = values[start : start + VALUES_AT_ONCE]
                found |= _printed(site, some, in_clear=in_clear)
            return found

        yield printed


def _printed(site: Site, values: list[str], *, in_clear: bool) -> Printed:
    site.code(
        PREAMBLE + "\n".join(f"notify {{ 'v{n}': message => {value} }}" for n, value in enumerate(values))
    )
    answer = site.ask(do="compile", node="node")
    assert "error" not in answer, answer
    site.flush()
    # What the module publishes has no secrets any more; Puppet's own catalog has them.
    body = json.dumps(site.ask(do="native")["catalog"]).encode() if in_clear else messages(site.spool)[-1]
    skimmed = skim(body, {}, AT)
    assert isinstance(skimmed, Skim)
    ours = {resource.title: resource.parameters for resource in normalise(skimmed).resources}
    theirs = {
        resource["title"]: resource["parameters"] for resource in site.ask(do="munge")["catalog"]["resources"]
    }
    return {
        value: (ours[f"v{n}"].get("message"), theirs[f"v{n}"].get("message"))
        for n, value in enumerate(values)
    }


def differing(found: Printed) -> Printed:
    """Where both can be told. As JSON text: 1 and 1.0 and true are equal in Python."""
    return {
        value: pair
        for value, pair in found.items()
        if json.dumps(pair[0]) != json.dumps(pair[1]) and not cannot_be_equal(value, pair[1])
    }


def cannot_be_equal(value: str, theirs: Any) -> bool:
    """What the terminus prints of an object within a key has its address, and changes from run to run; the source of a
    range of versions is all that native form has of it; and what looks like a secret is redacted although its maker may
    have meant a plain hash."""
    return (
        re.search(r"0x[0-9a-f]{16}", json.dumps(theirs)) is not None
        or ("SemVerRange" in value and ">=1.0.0" in json.dumps(theirs))
        or "'__ptype' => 'Sensitive'" in value
    )


def test_every_data_type_in_every_place_is_printed_as_the_terminus_prints_it(
    compiled: Callable[..., Printed],
) -> None:
    """Alone, in arrays and hashes, as a key, in Deferred, in objects, and in each of them within a key."""
    values = in_every_place()
    found = compiled(values)
    comparable = [value for value, (_, theirs) in found.items() if not cannot_be_equal(value, theirs)]
    print(f"{len(found)} values, {len(comparable)} of them comparable")
    assert len(comparable) > 1200
    assert differing(found) == {}
    assert not [
        value for value, (ours, _) in found.items() if "'__pvalue': 'x'" in repr(ours) and "Sens" in value
    ]


def test_made_up_values_are_printed_as_the_terminus_prints_them(compiled: Callable[..., Printed]) -> None:
    """Nested at random, with any text; another seed each time, which the failure names."""
    seed = int(os.environ.get("INGEST_TEST_RICH_SEED", "0")) or 20260101
    maker = Maker(seed)
    found = compiled([maker.value() for _ in range(MADE_UP)])
    assert differing(found) == {}, f"INGEST_TEST_RICH_SEED={seed}"


def test_a_secret_is_said_to_be_one_as_the_terminus_says_it(compiled: Callable[..., Printed]) -> None:
    """Its kind, within other values, and never what it is."""
    for value, (ours, theirs) in compiled(SECRETS, in_clear=True).items():
        assert ours == theirs, value


def test_a_secret_that_the_agent_is_to_make_is_in_neither_form(compiled: Callable[..., Printed]) -> None:
    """As Puppet has it in its native form, and as the terminus prints it, which is what the engine is sent by others."""
    for value, (ours, theirs) in compiled(MADE_SECRETS, in_clear=True).items():
        assert SECRET not in json.dumps(ours), value
        resource = {"type": "Notify", "title": "x", "parameters": {"message": theirs}}
        kept = normalise_resource(json.dumps(resource).encode(), "puppetdb").resource.parameters
        assert SECRET not in json.dumps(kept), (value, theirs)
        # Puppet's native form has dropped what is in Sensitive[...], and Ruby shows addresses.
        if "Sensitive[" not in value and "#<" not in json.dumps(theirs):
            assert kept["message"] == ours, value


def test_what_native_form_has_dropped_is_printed_without_it(compiled: Callable[..., Printed]) -> None:
    """Puppet's own serialisation of these has less than the terminus sees: no engine could tell. Were it to keep more one day,
    this fails, and they join the others."""
    found = compiled(DROPPED)
    assert set(differing(found)) == set(DROPPED)
