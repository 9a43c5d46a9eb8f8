"""Which publisher may speak for which node."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.config.producers import load_producer_rules
from ingest.core.delivery.producers import ProducerRules, user_header
from ingest.errors import Misconfigured, Rejected

RULES = ProducerRules({"a": ["*.a.example.com", "db-01"], "b": ["web-[0-9].b"], "admin": ["*"], "nobody": []})


@pytest.mark.parametrize(
    ("user", "certname"),
    [
        ("a", "web-01.a.example.com"),
        ("a", "db-01"),
        ("b", "web-1.b"),
        ("admin", "x"),
        ("admin", "line\nend"),
    ],
)
def test_a_publisher_speaks_for_its_own_nodes(user: str, certname: str) -> None:
    """A certname that one of the user's patterns matches is let through."""
    RULES.require(user, certname)


@pytest.mark.parametrize(
    ("user", "certname"),
    [
        ("a", "web-01.b.example.com"),
        ("a", "web-01.a.example.com.evil.org"),
        ("a", "web-01.A.example.com"),
        ("a", "db-01\n"),
        ("a", "xdb-01"),
        ("b", "web-10.b"),
        ("b", "db-01"),
        ("nobody", "x"),
        ("stranger", "db-01"),
        ("", "db-01"),
    ],
)
def test_a_publisher_speaks_for_nobody_else(user: str, certname: str) -> None:
    """Patterns match from end to end and with case; who is not listed speaks for none."""
    with pytest.raises(Rejected) as caught:
        RULES.require(user, certname)
    assert caught.value.reason == "forbidden_producer"


def test_a_message_of_nobody_is_refused() -> None:
    """Where the broker does not say who published, nobody is taken for somebody."""
    with pytest.raises(Rejected) as caught:
        RULES.require(None, "db-01")
    assert caught.value.reason == "unknown_producer"


@pytest.mark.parametrize(
    ("server", "header"),
    [
        ("RabbitMQ/3.10.8", "user-id"),
        ("ActiveMQ/5.17.2", "JMSXUserID"),
        ("ActiveMQ-Artemis/2.31.0 ActiveMQ Artemis Messaging Engine", "_AMQ_VALIDATED_USER"),
        ("stompserver", ""),
        ("", ""),
    ],
)
def test_each_broker_has_a_header_of_its_own(server: str, header: str) -> None:
    """The header that this broker's clients cannot choose; none where we know of none."""
    assert user_header(server) == header


def test_the_rules_are_a_toml_file(tmp_path: Path) -> None:
    """One table, a list of patterns a user."""
    file = tmp_path / "producers.toml"
    file.write_text('[producers]\n"a" = ["*.a"]\n')
    rules = load_producer_rules(str(file))
    assert rules is not None
    rules.require("a", "x.a")
    assert load_producer_rules("") is None


@pytest.mark.parametrize(
    "text", ["", "[producers", "producers = 3", '[producers]\na = "x"', "[producers]\na = [1]", "[other]\n"]
)
def test_a_file_that_is_not_understood_is_named(tmp_path: Path, text: str) -> None:
    """Nothing is guessed: the setting and the file stand in the complaint."""
    file = tmp_path / "producers.toml"
    file.write_text(text)
    with pytest.raises(Misconfigured, match=r"--producers-file.*producers\.toml"):
        load_producer_rules(str(file))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """So is one that cannot be read."""
    with pytest.raises(Misconfigured, match="--producers-file"):
        load_producer_rules(str(tmp_path / "none.toml"))
