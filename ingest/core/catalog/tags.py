"""A resource's tags: checked by PuppetDB's rule, sorted, each once."""

from __future__ import annotations

import re
import sys

from ingest.core.bounded_cache import BoundedCache

# Letters and digits of any script, _ : . -, no upper case.
_TAG = re.compile(r"\A\w[\w:.\-]*\Z")
TAGS_BYTES_MAX, TAG_LISTS_BYTES_MAX = 4 * 1024 * 1024, 16 * 1024 * 1024
# A fleet has some thousand tags. Each resource has its own list, with its title and those of the classes around it.
_good_tags: BoundedCache[str, bool] = BoundedCache(
    TAGS_BYTES_MAX, lambda tag, _: 100 + sys.getsizeof(tag), entry_bytes_max=4096
)
_tag_lists: BoundedCache[tuple[str, ...], tuple[str, ...]] = BoundedCache(
    TAG_LISTS_BYTES_MAX,
    lambda given, _: 200 + 72 * len(given) + sys.getsizeof("".join(given)),
    entry_bytes_max=16384,
)


def sorted_tags(given: tuple[str, ...]) -> tuple[str, ...] | None:
    """None when one of them is no tag; TypeError when one is no string."""
    tags = _tag_lists.get(given)
    if tags is None:
        distinct = set(given)
        new = distinct.difference(_good_tags.entries)
        if not all(map(is_tag, new)):
            return None
        for tag in new:
            _good_tags.put(tag, True)
        tags = tuple(sorted(distinct))
        _tag_lists.put(given, tags)
    return tags


def is_tag(tag: str) -> bool:
    return bool(_TAG.match(tag)) and tag == tag.lower()
