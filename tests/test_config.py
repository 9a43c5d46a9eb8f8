"""Settings: which source wins, what is refused and how, and that passwords stay hidden."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.config.loading import load, redact
from ingest.config.puppet_conf import read_puppet_conf
from ingest.config.setting import Setting
from ingest.config.settings import RETIRED, SETTINGS, Config
from ingest.config.writing import as_toml
from ingest.core.passwords import HIDDEN, hide_passwords
from ingest.core.quantities import duration_s, size_bytes
from ingest.errors import Misconfigured

NUMBERS = [s for s in SETTINGS if s.type in (int, float)]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ingest.toml of anybody else is near."""
    monkeypatch.chdir(tmp_path)


def _toml(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "ingest.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_any_source_every_value_is_the_default() -> None:
    """Nothing said: defaults, and they say so."""
    found = load({}, {})
    assert found.config == Config()
    assert set(found.origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("sources", "value", "origin"),
    [
        ({}, "/queue/catalog", "default"),
        ({"toml"}, "/queue/toml", "ingest.toml"),
        ({"toml", "environment"}, "/queue/environment", "INGEST_DESTINATION"),
        ({"toml", "environment", "flag"}, "/queue/flag", "--destination"),
        ({"toml", "flag"}, "/queue/flag", "--destination"),
    ],
)
def test_the_stronger_source_wins(tmp_path: Path, sources: set[str], value: str, origin: str) -> None:
    """Defaults < ingest.toml < environment < flags, and the origin names the winner."""
    if "toml" in sources:
        _toml(tmp_path, 'destination = "/queue/toml"')
    environment = {"INGEST_DESTINATION": "/queue/environment"} if "environment" in sources else {}
    flags = {"destination": "/queue/flag" if "flag" in sources else None}
    found = load(flags, environment)
    assert (found.config.destination, found.origins["destination"]) == (value, origin)


def test_puppet_conf_stands_between_toml_and_environment(tmp_path: Path) -> None:
    """A puppet.conf that was asked for beats a file that lies there; a variable beats both."""
    _toml(tmp_path, 'queue_source = "stomp://toml"\ndatabase = "dbname=toml"')
    puppet_conf = tmp_path / "puppet.conf"
    puppet_conf.write_text("[main]\nqueue_source = stomp://puppet\ndbserver = db\ndbname = puppet\n")
    found = load({}, {"INGEST_DATABASE": "dbname=environment"}, None, puppet_conf)
    assert found.config.queue_source == "stomp://puppet"
    assert found.origins["queue_source"] == "puppet.conf"
    assert found.config.database == "dbname=environment"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_every_setting_can_be_given_as_its_own_default(setting: Setting) -> None:
    """What ``str`` makes of a default reads back as that value, from a variable and from a flag."""
    text = str(setting.default)
    assert getattr(load({}, {setting.variable: text}).config, setting.name) == setting.default
    assert getattr(load({setting.name: text}, {}).config, setting.name) == setting.default


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda s: s.name)
@pytest.mark.parametrize("end", ["ge", "le"])
def test_a_number_beyond_its_limit_is_refused_by_name(setting: Setting, end: str) -> None:
    """Every number has two ends, and the error names the flag, the origin and the end."""
    limit = getattr(setting.limits, end)
    assert limit is not None
    beyond = limit + (1 if end == "le" else -1)
    with pytest.raises(Misconfigured) as caught:
        load({}, {setting.variable: f"{beyond:.10f}" if setting.type is float else str(int(beyond))})
    assert caught.value.setting == setting.flag
    assert setting.variable in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", "x"),
        ("workers", "1.5"),
        ("workers", 1.0),
        ("workers", True),
        ("workers", ""),
        ("drain_timeout_s", "1 fortnight"),
        ("drain_timeout_s", float("nan")),
        ("drain_timeout_s", float("inf")),
        ("drain_timeout_s", False),
        ("batch_linger_ms", "nan"),
        ("window_bytes_max", "256MB"),
        ("migrate", "perhaps"),
        ("migrate", 2),
        ("destination", 5),
        ("destination", ["a"]),
        ("log_format", "yaml"),
        ("queue_source", {"a": 1}),
    ],
)
def test_a_value_that_is_none_of_its_kind_is_refused(name: str, value: Any) -> None:
    """Wrong kinds are one clear error, never a stack trace and never a guess."""
    with pytest.raises(Misconfigured) as caught:
        load({name: value}, {})
    assert caught.value.setting == f"--{name.replace('_', '-')}"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("drain_timeout_s", "2m", 120.0),
        ("node_ttl_s", "7d", 604_800.0),
        ("connect_timeout_s", "500ms", 0.5),
        ("window_bytes_max", "1GiB", 1024**3),
        ("body_bytes_max", "64KiB", 65536),
        ("migrate", "No", False),
        ("tls_verify", "1", True),
    ],
)
def test_values_are_read_as_people_write_them(name: str, text: str, value: object) -> None:
    """Durations, sizes and switches have their usual short forms."""
    assert getattr(load({name: text}, {}).config, name) == value


def test_a_list_of_brokers_may_be_a_list_in_toml(tmp_path: Path) -> None:
    """Failover reads naturally in ingest.toml."""
    _toml(tmp_path, 'queue_source = ["stomp://a", "stomp://b"]')
    assert load({}, {}).config.queue_source == "stomp://a,stomp://b"


@pytest.mark.parametrize(
    ("text", "setting"),
    [("worker = 2", "worker"), ("[engine]\nworkers = 2", "engine"), ("workers = ", "--config")],
)
def test_a_toml_file_that_says_nothing_we_know_is_refused(tmp_path: Path, text: str, setting: str) -> None:
    """A misspelt key does not silently leave a default in place."""
    file = _toml(tmp_path, text)
    with pytest.raises(Misconfigured) as caught:
        load({}, {}, file)
    assert caught.value.setting == setting
    assert str(file) in str(caught.value)


def test_a_named_toml_file_must_exist(tmp_path: Path) -> None:
    """Without a name a missing ingest.toml is fine; with one it is a mistake."""
    with pytest.raises(Misconfigured, match="--config: there is no file"):
        load({}, {}, tmp_path / "nowhere.toml")


def test_two_bodies_must_fit_into_the_window() -> None:
    """A body may not be larger than half the window, or two messages could block each other."""
    with pytest.raises(Misconfigured, match="--body-bytes-max"):
        load({"body_bytes_max": "200MiB"}, {})


def test_a_configuration_survives_the_way_to_a_child() -> None:
    """Encoded for a child process and decoded there, it is the same."""
    config = load({"workers": "3", "queue_source": "stomp://a"}, {}).config
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=Config) == config


# Passwords


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("queue_source", "stomp://u:secret@h:1", f"stomp://u:{HIDDEN}@h:1"),
        ("queue_source", "stomp://u:se:cr@et@h:1", HIDDEN),
        ("queue_source", "stomp://u:sec ret@h:1", HIDDEN),
        (
            "queue_source",
            "stomp://u:secret@h,stomp+ssl://v:secret@i",
            f"stomp://u:{HIDDEN}@h,stomp+ssl://v:{HIDDEN}@i",
        ),
        ("queue_source", "stomp://h:1 stomp://u:secret@i", f"stomp://h:1 stomp://u:{HIDDEN}@i"),
        ("queue_source", "stomp://h:1", "stomp://h:1"),
        ("database", "postgresql://u:secret@h/d", f"postgresql://u:{HIDDEN}@h/d"),
        ("database", "host=h password=secret user=u", f"host=h password={HIDDEN} user=u"),
        ("database", r"password='my \' secret' host=h", f"password={HIDDEN} host=h"),
        ("database", r"password=my\ secret host=h", f"password={HIDDEN} host=h"),
        ("database", "host=h PASSWORD = 'sec ret", HIDDEN),
        ("database", "postgresql://h/d?password=secret", f"postgresql://h/d?password={HIDDEN}"),
        ("database", "host=h sslpassword=secret", f"host=h sslpassword={HIDDEN}"),
        ("destination", "/queue/a", "/queue/a"),
    ],
)
def test_a_password_is_never_shown(name: str, value: str, shown: str) -> None:
    """Passwords in addresses and conninfos are hidden, the rest stays readable."""
    assert redact(name, value) == shown


@given(
    user=st.text("abz09.%", max_size=5),
    password=st.text(
        st.characters(blacklist_characters="/", blacklist_categories=("Cs", "Z", "Cc")), min_size=1
    ),
)
def test_no_password_of_an_address_survives(user: str, password: str) -> None:
    """Whatever characters a password has, nothing of it is left in the text."""
    shown = hide_passwords(f"connecting to stomp://{user}:{password}@broker.example.com:61613 failed")
    assert shown == f"connecting to stomp://{user}:{HIDDEN}@broker.example.com:61613 failed"


def test_an_error_about_an_address_hides_its_password() -> None:
    """The value in an error line is redacted like everywhere else."""
    with pytest.raises(Misconfigured) as caught:
        load({"queue_source": {"stomp://u:secret@h": 1}}, {})
    assert "secret" not in str(caught.value)


# puppet.conf


def test_later_sections_of_puppet_conf_win(tmp_path: Path) -> None:
    """[queue] over [puppetmasterd] over [server] over [master] over [main], wherever they stand in the file."""
    file = tmp_path / "puppet.conf"
    file.write_text(
        "[queue]\nqueue_source = stomp://queue\n[main]\nqueue_source=stomp://main\nqueue_type = stomp\n"
        "dbserver = main\n[agent]\ndbname = agent\n[master]\n  dbserver = master\n# dbport = 1\n"
        "[server]\ndbserver = 'server'\ndbuser = u\n[puppetmasterd]\ndbpassword = it's\\\n"
    )
    assert read_puppet_conf(file) == {
        "queue_type": "stomp",
        "queue_source": "stomp://queue",
        "database": r"host='server' user='u' password='it\'s\\'",
    }


def test_the_modules_own_file_is_one_that_the_engine_reads(tmp_path: Path) -> None:
    """The example beside the Puppet module, and what it may say of the engine's business."""
    example = Path(__file__).parents[1] / "puppet" / "examples" / "catalog_queue.conf"
    file = tmp_path / "catalog_queue.conf"
    file.write_text(
        example.read_text().replace("thin_storeconfigs = false", "thin_storeconfigs = true")
        + "queue_destination = /queue/mine\n"
    )
    config = load({}, {}, None, file).config
    assert config.queue_source == "stomp://127.0.0.1:61613"
    assert (config.destination, config.thin_storeconfigs) == ("/queue/mine", True)
    assert "dbname='puppet'" in config.database


@pytest.mark.parametrize(
    "text", ["[main]\nasync_storeconfigs = false\n", "[main]\ndbadapter = mysql\ndbname = puppet\n"]
)
def test_a_puppet_conf_that_contradicts_us_is_refused(tmp_path: Path, text: str) -> None:
    """A server that does not publish, or another kind of database, is told at once."""
    file = tmp_path / "puppet.conf"
    file.write_text(text)
    with pytest.raises(Misconfigured, match="--puppet-conf"):
        read_puppet_conf(file)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_puppet_conf_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """Missing or not text: one line."""
    file = tmp_path / "puppet.conf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Misconfigured, match="--puppet-conf"):
        read_puppet_conf(file)


# Quantities


@pytest.mark.parametrize("text", ["-1", "1x", "m", "1 m m", "1e3", "٣"])
def test_what_is_no_duration_or_size_is_refused(text: str) -> None:
    """No guessing."""
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        duration_s(text)
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        size_bytes(text)


@pytest.mark.parametrize("name", RETIRED)
def test_a_retired_setting_is_told_of_and_does_nothing(tmp_path: Path, name: str) -> None:
    """From the file, the environment or a flag: one line that says where it stands; the configuration is the default."""
    file = tmp_path / "other.toml"
    file.write_text(f"{name} = 3\n")
    for found, origin in (
        (load({}, {}, file), str(file)),
        (load({}, {f"INGEST_{name.upper()}": "x"}), f"INGEST_{name.upper()}"),
        (load({name: "0"}, {}), f"--{name.replace('_', '-')}"),
    ):
        assert found.config == load({}, {}).config
        assert [line.partition(" has no effect")[0] for line in found.retired] == [f"{name} (from {origin})"]
    assert load({}, {}).retired == ()


def test_the_file_to_begin_with_changes_nothing(tmp_path: Path) -> None:
    """Every setting stands in it with what it is for, commented out: it reads as no file at all; and with every line in
    force it is still the defaults."""
    text = as_toml(Config(), {setting.name: "default" for setting in SETTINGS})
    assert load({}, {}, _toml(tmp_path, text)).origins == {setting.name: "default" for setting in SETTINGS}
    in_force = re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)
    found = load({}, {}, _toml(tmp_path, in_force))
    assert set(found.origins.values()) == {str(tmp_path / "ingest.toml")}
    assert found.config == Config()
    words = " ".join(text.replace("\n# ", " ").split())
    assert [setting.name for setting in SETTINGS if " ".join(setting.about.help.split()) not in words] == []


def test_what_somebody_has_set_is_in_force_in_it(tmp_path: Path) -> None:
    """Whatever its type, and whatever stands in a text."""
    given = {"database": "host=db password='a\\'b \"c\"'", "workers": "3", "batch_linger_ms": "0.5", "migrate": "false",
             "facts_blocklist": "a.*\n~^ec2_\n", "node_ttl_s": "7d"}  # fmt: skip
    first = load({}, {f"INGEST_{name.upper()}": value for name, value in given.items()})
    again = load({}, {}, _toml(tmp_path, as_toml(first.config, first.origins)))
    assert again.config == first.config
    assert {name for name, origin in again.origins.items() if origin != "default"} == given.keys()


def test_credentials_of_a_unit_are_settings(tmp_path: Path) -> None:
    """What systemd hands over counts more than ingest.toml, and less than a variable; what is not there is not missed."""
    given = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load({}, given).config == Config()
    (tmp_path / "ingest_broker-password").write_text("s3cret\n")
    (tmp_path / "ingest_database").write_text("host=db password=s3cret\n")
    toml = _toml(tmp_path, 'database = "dbname=toml"\n')
    found = load({}, given, toml)
    assert found.config.queue_password_file == str(tmp_path / "ingest_broker-password")
    assert (found.config.database, found.origins["database"]) == ("host=db password=s3cret", "credential")
    assert load({}, given | {"INGEST_DATABASE": "dbname=x"}, toml).config.database == "dbname=x"
    (tmp_path / "ingest_database").write_bytes(b"\xff")
    with pytest.raises(Misconfigured, match="credential"):
        load({}, given)


def test_the_sites_file_counts_where_no_other_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's ingest.toml is for commands too; one in the working directory, or a named one, comes first."""
    site = tmp_path / "site.toml"
    site.write_text("workers = 7\n")
    monkeypatch.setattr("ingest.config.loading.SITE_TOML", site)
    found = load({}, {})
    assert (found.config.workers, found.origins["workers"]) == (7, str(site))
    _toml(tmp_path, "workers = 5\n")
    assert load({}, {}).config.workers == 5
    assert load({}, {}, site).config.workers == 7
