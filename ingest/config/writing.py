"""The settings as a file that explains itself: what ``ingest config init`` writes, made from their own descriptions."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ingest.config.front_settings import FrontSettings
from ingest.config.process_settings import ProcessSettings
from ingest.config.setting import Setting
from ingest.config.settings import SETTINGS, Config

WIDTH = 100
_FRONT = {field.name for field in msgspec.structs.fields(FrontSettings)}
_PROCESSES = {field.name for field in msgspec.structs.fields(ProcessSettings)} - _FRONT
HEAD = """\
# Settings of puppet-ingest. What is commented out is as it is by default. A variable INGEST_NAME wins over a line here, and a
# flag --name over that; 'ingest config' shows what counts and why, 'ingest doctor' whether it works. Times may be written as
# "30m", sizes as "64MiB". What is marked (reload) is read again at SIGHUP: systemctl reload puppet-ingest.
"""


def sections() -> Iterator[tuple[str, list[Setting]]]:
    """The settings, in the order in which a person needs them."""
    rest = [setting for setting in SETTINGS if setting.name not in _FRONT | _PROCESSES]
    yield "Where from, where to, and how it runs", rest
    yield "The processes, and what each may take", [each for each in SETTINGS if each.name in _PROCESSES]
    yield "ingest serve, PuppetDB's interface", [each for each in SETTINGS if each.name in _FRONT]


def as_toml(config: Config, origins: Mapping[str, str], *, is_for_here: bool = True) -> str:
    """Every setting with what it is for; those that somebody has set are in force. Where it is for other machines too, no
    default that depends on this one stands in it."""
    parts = [HEAD]
    for title, settings in sections():
        parts.append(f"\n## {title}\n")
        parts += [
            _paragraph(each, getattr(config, each.name), origins[each.name], is_for_here) for each in settings
        ]
    return "".join(parts)


def default_text(setting: Setting) -> str:
    """What stands for the default where the reader's machine is another one."""
    if setting.name == "data_dir":
        return "~/.local/share/puppet-ingest"
    return "by the machine" if setting.about.by_machine else toml_value(setting.default)


def toml_value(value: Any) -> str:
    """JSON's texts, numbers and booleans are TOML's."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value)) + ".0"
    return json.dumps(value)


def _paragraph(setting: Setting, value: Any, origin: str, is_for_here: bool) -> str:
    notes = [setting.about.help]
    if setting.about.choices:
        notes.append("one of " + ", ".join(setting.about.choices))
    if setting.about.reloads:
        notes.append("(reload)")
    text = textwrap.fill(
        "; ".join(notes), WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
    is_set = origin != "default"
    shown = _value(setting, value if is_set else setting.default)
    if not is_set and not is_for_here:
        shown = default_text(setting)
    return f"\n{text}\n{'' if is_set else '#'}{setting.name} = {shown}\n"


def _value(setting: Setting, value: Any) -> str:
    if setting.name in ("facts_blocklist", "facts_volatile"):
        return json.dumps(str(value).splitlines())
    return toml_value(value)
