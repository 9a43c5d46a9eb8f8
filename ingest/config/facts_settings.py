"""The settings of facts."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ingest.config.about import About


class FactsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A part of ``Config``."""

    facts_blocklist: Annotated[
        str,
        About(
            "facts and parts of facts that are never stored, in ingest.toml a list: mountpoints.*.available_bytes, "
            '"a.b".c, ~^ec2_ (a regular expression)'
        ),
    ] = ""
    facts_volatile: Annotated[
        str, About("the same for what changes with every run, beside what Facter is known for")
    ] = ""
