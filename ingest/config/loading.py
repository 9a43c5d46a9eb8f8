"""Puts the settings together from defaults < ingest.toml < puppet.conf < environment < flags."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ingest.config.puppet_conf import read_puppet_conf
from ingest.config.setting import Setting
from ingest.config.settings import RETIRED, SETTINGS, Config
from ingest.core.delivery.destinations import kinds_of
from ingest.core.delivery.importance import RANKS
from ingest.core.facts.selection import patterns_of, selection
from ingest.core.passwords import HIDDEN, show_addresses, show_conninfo
from ingest.core.quantities import duration_s, size_bytes
from ingest.errors import Misconfigured

PATTERNS = ("facts_blocklist", "facts_volatile")  # lists of patterns
DESTINATION = Config().destination
FOLLOWERS = ("facts_destination", "reports_destination")
DEFAULT_TOML = Path("ingest.toml")
SITE_TOML = Path(
    "/etc/puppet-ingest/ingest.toml"
)  # what the package installs; it counts where no other is here
# A unit's LoadCredential=ingest:DIRECTORY gives each file in it as ingest_NAME; these become settings by themselves.
CREDENTIALS = {
    "queue_password_file": "broker-password",
    "tls_key_file": "tls-key",
    "ssl_key": "http-key",
    "embedded_broker_key_file": "embedded-broker-key",
}
DATABASE_CREDENTIAL = "database"  # the conninfo itself: libpq refuses a passfile with a credential's mode
_BY_NAME = {setting.name: setting for setting in SETTINGS}


class Origins(NamedTuple):
    """A configuration and where each value of it came from. ``again`` reads all the sources once more; ``retired`` has
    a line for each setting that is there and no longer does anything."""

    config: Config
    origins: dict[str, str]
    again: Callable[[], Config]
    retired: tuple[str, ...] = ()


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    toml_file: Path | None = None,
    puppet_conf: Path | None = None,
) -> Origins:
    """Puts the sources together. Raises Misconfigured naming the setting and where its value stands."""
    values: dict[str, Any] = {}
    origins = {setting.name: "default" for setting in SETTINGS}
    retired: dict[str, str] = {}
    for name, value, origin in _sources(flags, environment, toml_file, puppet_conf):
        if name in RETIRED:
            retired[name] = f"{name} (from {origin}) has no effect: {RETIRED[name]}"
        else:
            values[name] = _checked(_BY_NAME[name], value, origin)
            origins[name] = origin
    if values.get("destination", DESTINATION) != DESTINATION:
        # A site that named one queue of its own has all kinds there, unless it says otherwise.
        for name in (each for each in FOLLOWERS if each not in values):
            values[name], origins[name] = values["destination"], "destination"
    config = Config(**values)
    _check_queues(config)
    if config.body_bytes_max > config.window_bytes_max // 2:
        raise Misconfigured(
            "--body-bytes-max",
            f"{config.body_bytes_max} is more than half of window_bytes_max={config.window_bytes_max}: "
            "two bodies must fit",
        )
    for name in PATTERNS:
        selection(patterns_of(getattr(config, name)), f"--{name.replace('_', '-')}")
    again = lambda: load(flags, environment, toml_file, puppet_conf).config  # noqa: E731
    return Origins(config, origins, again, tuple(retired.values()))


def _check_queues(config: Config) -> None:
    """Raises Misconfigured."""
    if not config.destination:
        raise Misconfigured("--destination", "it is empty: it names the queue of catalogs")
    try:
        kinds_of(config.kinds)
    except ValueError as error:
        known = ", ".join(RANKS)
        raise Misconfigured("--kinds", f"{str(error)!r} is none of {known}, separated by commas") from None


class Reloaded(NamedTuple):
    """What reading the settings again has changed, by name."""

    config: Config
    taken: list[str]
    left: list[str]  # they need a restart


def reloadable(running: Config, wanted: Config) -> Reloaded:
    """The running settings with those of the wanted ones that can change at work."""
    changed = [each for each in SETTINGS if getattr(wanted, each.name) != getattr(running, each.name)]
    taken = {each.name: getattr(wanted, each.name) for each in changed if each.about.reloads}
    left = [each.name for each in changed if not each.about.reloads]
    return Reloaded(msgspec.structs.replace(running, **taken), sorted(taken), left)


def _sources(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    toml_file: Path | None,
    puppet_conf: Path | None,
) -> Iterator[tuple[str, Any, str]]:
    """(name, value, where it stands); what comes later wins."""
    toml_file, document = _from_toml(toml_file)
    for name, value in document.items():
        yield name, value, str(toml_file)
    yield from _from_credentials(environment.get("CREDENTIALS_DIRECTORY", ""))
    # Above ingest.toml: it is asked for on the command line, the other one may just lie there.
    if puppet_conf is not None:
        for name, value in read_puppet_conf(puppet_conf).items():
            yield name, value, "puppet.conf"
    for name in (*_BY_NAME, *RETIRED):
        if (variable := f"INGEST_{name.upper()}") in environment:
            yield name, environment[variable], variable
    for name, value in flags.items():
        if value is not None:
            yield name, value, f"--{name.replace('_', '-')}"


_SHOWN: Mapping[str, Callable[[str], str]] = {
    "queue_source": show_addresses,
    "database": show_conninfo,
    "http_database": show_conninfo,
}


def redact(name: str, value: Any) -> str:
    """The value of a setting for a person's eyes: without passwords."""
    text = str(value)
    if not text or not _BY_NAME[name].about.is_secret:
        return text
    return _SHOWN[name](text) if name in _SHOWN and isinstance(value, str) else HIDDEN


def _from_credentials(directory: str) -> Iterator[tuple[str, Any, str]]:
    if not directory:
        return
    for name, credential in CREDENTIALS.items():
        file = Path(directory) / f"ingest_{credential}"
        if file.exists():
            yield name, str(file), "credential"
    file = Path(directory) / f"ingest_{DATABASE_CREDENTIAL}"
    try:
        yield "database", file.read_text(encoding="utf-8").strip(), "credential"
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Misconfigured("--database", f"the credential {DATABASE_CREDENTIAL}: {why}") from error


def _from_toml(file: Path | None) -> tuple[Path, dict[str, Any]]:
    """The file that counts, and what is in it."""
    if file is None and not DEFAULT_TOML.exists() and os.access(SITE_TOML, os.R_OK):
        file = SITE_TOML
    path = file or DEFAULT_TOML
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if file is None:
            return path, {}
        raise Misconfigured("--config", f"there is no file {file}") from None
    except UnicodeDecodeError as error:
        raise Misconfigured("--config", f"{path} is not UTF-8") from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured("--config", f"{path}: {getattr(error, 'strerror', None) or error}") from error
    for name in document:
        if name not in _BY_NAME and name not in RETIRED:
            raise Misconfigured(name, f"no setting has this name (in {path}); {_near(name)}")
    return path, document


def _near(name: str) -> str:
    """What was meant, perhaps."""
    import difflib  # not what every command waits for

    if found := difflib.get_close_matches(name, _BY_NAME, 1):
        return f"is it {found[0]}?"
    return "'ingest config' lists them"


def _checked(setting: Setting, value: Any, origin: str) -> Any:
    """The value in its type and within its limits. Raises Misconfigured."""
    about = setting.about

    def wrong(expected: str) -> Misconfigured:
        return Misconfigured(
            setting.flag, f"{redact(setting.name, value)!r} (from {origin}) is not {expected}"
        )

    if setting.type is str:
        if isinstance(value, list) and setting.name in ("queue_source", "kinds"):
            value = ",".join(map(str, value))
        if isinstance(value, list) and setting.name in PATTERNS:
            value = "".join(f"{item}\n" for item in value)
        if not isinstance(value, str):
            raise wrong("text")
        if "\0" in value or not _is_utf8(value):
            raise wrong("text in UTF-8 without NUL")
        if about.choices and value not in about.choices:
            raise wrong("one of " + ", ".join(about.choices))
        return value
    try:
        checked = _READERS[setting.type](setting.name, value)
    except (ValueError, TypeError, KeyError, OverflowError):
        raise wrong(_expected(setting)) from None
    if expected := setting.out_of_limits(checked):
        raise wrong(expected)
    return checked


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # other bytes of a variable or an argument are lone surrogates
        return False
    return True


_WORDS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def _read_bool(_: str, value: Any) -> bool:
    return _WORDS[str(value).strip().lower()]


def _require_ascii(value: str) -> None:
    """Python takes the digits of any script."""
    if not value.isascii():
        raise ValueError(value)


def _read_int(name: str, value: Any) -> int:
    if isinstance(value, str):
        _require_ascii(value)
        return size_bytes(value) if "_bytes_" in name else int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return value


def _read_float(name: str, value: Any) -> float:
    if isinstance(value, str):
        _require_ascii(value)
        if name.endswith("_s"):
            return duration_s(value)
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(value)
    return number


_READERS: Mapping[type, Any] = {bool: _read_bool, int: _read_int, float: _read_float}


def _expected(setting: Setting) -> str:
    if setting.type is bool:
        return "true or false"
    if setting.type is int:
        return "a number of bytes, like 64MiB" if "_bytes_" in setting.name else "a whole number"
    return "a number or a duration like 30m" if setting.name.endswith("_s") else "a number"
