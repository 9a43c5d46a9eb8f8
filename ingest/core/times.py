"""Times as producers write them: ISO 8601 in the shapes that PuppetDB reads, or milliseconds since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from ingest.errors import Rejected

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A number below it would be a time before 1973, when it rather counts seconds.
MILLISECONDS_MIN = 10**11
MILLISECONDS_MAX = 253_402_300_799_999  # the end of the year 9999
_MILLISECOND = timedelta(milliseconds=1)

_NUMBER = re.compile(r"([+-]?[0-9]+)(\.[0-9]+)?")
_BASIC_DATE = re.compile(r"[0-9]{8}")
_ORDINAL_DATE = re.compile(r"([0-9]{4})-([0-9]{3})(T.*)?")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
# Joda, which reads times for PuppetDB, does without leading zeros.
_LOOSE = re.compile(
    r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})"
    r"(?:T([0-9]{1,2})(?::([0-9]{1,2})(?::([0-9]{1,2}))?)?([.,][0-9]+)?(Z|[+-][0-9:]+)?)?"
)
_ISO = re.compile(r"[0-9W-]+(?:[T ][0-9:.,]+(?:Z|[+-][0-9:]+)?)?")


def parse_time(value: object, name: str) -> datetime:
    """An aware datetime in UTC, or Rejected. A number, also as text, is milliseconds since the epoch."""
    try:
        if isinstance(value, int | float):
            return _from_milliseconds(value, name)
        text = str(value)
        if text[4:5] == "-" and text[10:11] == "T":  # as nearly everybody writes it
            try:
                return _in_utc(datetime.fromisoformat(text))
            except ValueError:
                pass
        return _parse_unusual(text, name)
    except (ValueError, OverflowError, TypeError) as error:
        raise Rejected(
            "invalid",
            f"{name} is not an ISO 8601 time between the years 1 and 9999, "
            f"nor milliseconds since the epoch: {str(value)[:60]!r}",
        ) from error


def from_milliseconds(milliseconds: float) -> datetime:
    """Raises OverflowError for what is not between the years 1 and 9999."""
    whole = int(milliseconds)
    return EPOCH + whole * _MILLISECOND + timedelta(microseconds=round((milliseconds - whole) * 1000))


def _from_milliseconds(number: float, name: str) -> datetime:
    if isinstance(number, bool):
        raise TypeError(number)
    if not MILLISECONDS_MIN <= number <= MILLISECONDS_MAX:
        hint = "; it looks like seconds" if 10**8 <= number < MILLISECONDS_MIN else ""
        raise Rejected(
            "invalid",
            f"{name} is a number, which counts milliseconds since the epoch, and {str(number)[:40]} is not "
            f"between the years 1973 and 9999{hint}",
        )
    return from_milliseconds(number)


def _parse_unusual(text: str, name: str) -> datetime:
    if match := _NUMBER.fullmatch(text):
        if _BASIC_DATE.fullmatch(text):
            return _in_utc(datetime.fromisoformat(text))
        if len(text) > 40:
            raise OverflowError
        # Not as one float: sixteen digits are all that it has.
        whole, fraction = int(match[1]), float(match[2] or 0)
        return _from_milliseconds(whole, name) + timedelta(microseconds=int(fraction * 1000))
    if text[3:5] == ", ":
        return _in_utc(parsedate_to_datetime(text))  # RFC 822
    text = text.upper()
    if match := _ORDINAL_DATE.fullmatch(text):
        day = datetime(int(match[1]), 1, 1) + timedelta(days=int(match[2]) - 1)
        if day.year != int(match[1]):
            raise ValueError(text)
        text = f"{day:%Y-%m-%d}{match[3] or ''}"
    elif _MONTH.fullmatch(text):
        text += "-01"
    elif match := _LOOSE.fullmatch(text):
        year, month, day_, hour, minute, second, fraction_, zone = match.groups(default="")
        clock = f"{hour or 0:0>2}:{minute or 0:0>2}:{second or 0:0>2}"
        text = f"{year}-{month:0>2}-{day_:0>2}T{clock}{fraction_}{zone}"
    if not _ISO.fullmatch(text):
        raise ValueError(text)
    return _in_utc(datetime.fromisoformat(text))


def _in_utc(found: datetime) -> datetime:
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return found.astimezone(UTC)
