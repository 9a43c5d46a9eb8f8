"""What is said of a secret's kind is what Puppet says, or less: recorded from Puppet 7.23, ``type(VALUE, 'generalized')``."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.core.catalog.sensitive_kind import kind_of


def rich(kind: str, value: Any = "") -> dict[str, Any]:
    return {"__ptype": kind, "__pvalue": value}


A, B = rich("Regexp", "a"), rich("Regexp", "b")
DEFAULT = {"__ptype": "Default"}
ONE_KEY = rich("Hash", [1, 1])  # {1 => 1}
SECRET, OTHER = rich("Sensitive", 1), rich("Sensitive", "a")

PUPPET_SAYS = [
    (1, "Integer"),
    (1.5, "Float"),
    (True, "Boolean"),
    ("a", "String"),
    (None, "Undef"),
    ([], "Array[Unit]"),
    ({}, "Hash[0, 0]"),
    ([1, 2], "Array[Integer]"),
    ([1, 1.5], "Array[Numeric]"),
    ([1, 1.5, 2], "Array[Numeric]"),
    ([1.5, 2.5], "Array[Float]"),
    ([1, "a"], "Array[ScalarData]"),
    ([1, True, 1.5], "Array[ScalarData]"),
    ([True, False], "Array[Boolean]"),
    ([True, "a"], "Array[ScalarData]"),
    (["a", None], "Array[String]"),
    ([None, "a"], "Array[String]"),
    ([None, 1], "Array[Integer]"),
    ([None], "Array[Undef]"),
    ([None, None], "Array[Undef]"),
    ([None, [1]], "Array[Array[Integer]]"),
    ([None, {"a": 1}], "Array[Hash[String, Integer]]"),
    ([1, A], "Array[Scalar]"),
    ([A, B], "Array[Regexp]"),
    ([1, A, "a", True], "Array[Scalar]"),
    (["a", rich("SemVer", "1.2.3")], "Array[Scalar]"),
    ([rich("Timespan", "0-00:00:01.0"), "x"], "Array[Scalar]"),
    ([rich("Timestamp", "1970-01-01T00:00:01.000000000 UTC"), 1], "Array[Scalar]"),
    ([[1], [2]], "Array[Array[Integer]]"),
    ([[1], ["a"]], "Array[Array[ScalarData]]"),
    ([[1], []], "Array[Array[Integer]]"),
    ([[], []], "Array[Array[Unit]]"),
    ([[[]], [[1]]], "Array[Array[Array[Integer]]]"),
    ([[1], {}], "Array[Data]"),
    ([[1], 1], "Array[Data]"),
    ([{}, 1], "Array[Data]"),
    ([{}, []], "Array[Data]"),
    ([1, [None]], "Array[Data]"),
    ([{"a": 1}, {"b": 2}], "Array[Hash[String, Integer]]"),
    ([{"a": 1}, {"b": "x"}], "Array[Hash[String, ScalarData]]"),
    ([{"a": 1}, ONE_KEY], "Array[Hash[ScalarData, Integer]]"),
    ([{"a": 1}, "x"], "Array[Data]"),
    ([ONE_KEY, "x"], "Array[RichData]"),
    ([{"a": A}, "x"], "Array[RichData]"),
    ([[[1], 1], 1], "Array[Data]"),
    ([{"a": [[1], 1]}, 1], "Array[Data]"),
    ([[A], "x"], "Array[RichData]"),
    ({"a": 1}, "Hash[String, Integer]"),
    (ONE_KEY, "Hash[Integer, Integer]"),
    (rich("Hash", ["a", 1, 1, 1]), "Hash[ScalarData, Integer]"),
    ({"a": None}, "Hash[String, Undef]"),
    ({"a": [1]}, "Hash[String, Array[Integer]]"),
    ({"a": {"b": 1}}, "Hash[String, Hash[String, Integer]]"),
    ({"a": ONE_KEY}, "Hash[String, Hash[Integer, Integer]]"),
    ({"a": 1, "b": 1.5}, "Hash[String, Numeric]"),
    ({"a": 1, "b": []}, "Hash[String, Data]"),
    (["x", DEFAULT], "Array[RichData]"),
    ([DEFAULT], "Array[Default]"),
    ([DEFAULT, DEFAULT], "Array[Default]"),
    (SECRET, "Sensitive[Integer]"),
    ([SECRET], "Array[Sensitive[Integer]]"),
    ([SECRET, SECRET], "Array[Sensitive[Integer]]"),
    ([SECRET, OTHER], "Array[RichData]"),
    ([SECRET, 1], "Array[RichData]"),
    ({"a": SECRET}, "Hash[String, Sensitive[Integer]]"),
]
LESS_THAN_PUPPET_SAYS = [
    ([B], "Array[Regexp]"),  # Array[Regexp[/b/]]
    (rich("Hash", [A, 1]), "Hash[Regexp, Integer]"),  # Hash[Regexp[/a/], Integer]
    ([{"__ptype": "Pcore::IntegerType"}], "Array[Type]"),  # Array[Type[Integer]]
    ([{"__ptype": "the secret itself"}], "Array[Any]"),
    ([{"__ptype": "Deferred", "name": "the secret itself"}], "Array[Deferred]"),
]


@pytest.mark.parametrize(("secret", "kind"), PUPPET_SAYS, ids=str)
def test_the_kind_is_what_puppet_says(secret: Any, kind: str) -> None:
    """Of scalars, of containers by what all that is in them has in common."""
    assert kind_of(secret) == kind


@pytest.mark.parametrize(("secret", "kind"), LESS_THAN_PUPPET_SAYS, ids=str)
def test_what_would_tell_the_secret_is_left_out(secret: Any, kind: str) -> None:
    """The expression, the type that a type is, what is no type's name."""
    assert kind_of(secret) == kind
