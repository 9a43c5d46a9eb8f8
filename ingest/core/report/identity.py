"""The hash by which PuppetDB and its clients name a report.

Source: PuppetDB 7.12, ``puppetlabs.puppetdb.scf.hash/report-identity-hash``, and its answers: the SHA-1 of compact JSON with
sorted keys, times with milliseconds and Z, control characters as Jackson writes them.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from json.encoder import encode_basestring

_CONTROL = re.compile(r"\\u00([01][0-9a-f])")


def report_hash(
    *,
    certname: str,
    puppet_version: str | None,
    report_format: int | None,
    configuration_version: str | None,
    start_time: datetime,
    end_time: datetime,
    producer_timestamp: datetime,
    transaction_uuid: str | None,
) -> bytes:
    """20 bytes."""
    text = (
        f'{{"certname":{_text(certname)},"configuration_version":{_text(configuration_version)},'
        f'"end_time":"{milliseconds(end_time)}","producer_timestamp":"{milliseconds(producer_timestamp)}",'
        f'"puppet_version":{_text(puppet_version)},"report_format":{"null" if report_format is None else report_format},'
        f'"start_time":"{milliseconds(start_time)}","transaction_uuid":{_text(transaction_uuid)}}}'
    )
    if "\\u00" in text:
        text = _CONTROL.sub(lambda match: f"\\u00{match[1].upper()}", text)
    return hashlib.sha1(text.encode("utf-8", "replace"), usedforsecurity=False).digest()


def _text(value: str | None) -> str:
    return "null" if value is None else encode_basestring(value)


def milliseconds(time: datetime) -> str:
    """As PuppetDB writes it; finer parts are cut off."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
