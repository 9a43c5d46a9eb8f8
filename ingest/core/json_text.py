"""Any JSON value of a message, as Python has it: also what parsers refuse, as ``raw_text`` and ``nesting`` have it."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from ingest.core.nesting import require_shallow
from ingest.core.plain_text import UNSTORABLE
from ingest.core.raw_text import plain_surrogates, text_of
from ingest.errors import Rejected

T = TypeVar("T")


def parse_json(raw: bytes | memoryview | msgspec.Raw) -> Any:
    """Any JSON value, also with bytes that are not UTF-8 and with lone surrogate escapes, both as ``raw_text`` has
    them. Raises Rejected for numbers that no double can hold."""
    require_shallow(raw)
    try:
        return msgspec.json.decode(raw)
    except RecursionError as error:
        raise Rejected("too_deep", "the JSON is nested too deeply") from error
    except (UnicodeDecodeError, msgspec.DecodeError):
        text = text_of(plain_surrogates(raw))
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_no_constant)
    except RecursionError as error:
        raise Rejected("too_deep", "the JSON is nested too deeply") from error
    except ValueError as error:
        raise Rejected("unreadable", f"not JSON: {error}") from error


def converted(document: Any, type_: type[T]) -> T:
    """The parsed JSON as one of that type. Raises Rejected."""
    try:
        try:
            return msgspec.convert(document, type_)
        except UnicodeEncodeError:  # by a name that no member has
            return msgspec.convert(_with_plain_names(document), type_)
    except msgspec.ValidationError as error:
        raise Rejected("invalid", str(error)) from error
    except UnicodeEncodeError as error:
        raise Rejected("invalid", "a text that is not UTF-8 stands where another value belongs") from error


def _with_plain_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {UNSTORABLE.sub("\ufffd", name): _with_plain_names(item) for name, item in value.items()}
    return [_with_plain_names(item) for item in value] if isinstance(value, list) else value


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Rejected("number_out_of_range", f"the number {text[:40]} does not fit a double")
    return number


def _no_constant(text: str) -> float:
    raise Rejected("unreadable", f"{text} is not JSON")
