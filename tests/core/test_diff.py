"""What is written of a node's membership is what differs, and nothing else."""

from __future__ import annotations

from array import array

from hypothesis import example, given
from hypothesis import strategies as st

from ingest.core.catalog.diff import CHUNK_SLOTS, ChunkDiff, diff_chunks

ids = st.integers(1, 2**31 - 1)
# Sizes around the ends of chunks, and runs of one id: a list of hundreds of free integers is slow to draw.
sizes = st.sampled_from(
    [0, 1, 2, CHUNK_SLOTS - 1, CHUNK_SLOTS, CHUNK_SLOTS + 1, 2 * CHUNK_SLOTS, 3 * CHUNK_SLOTS + 5]
)


@st.composite
def members(draw: st.DrawFn) -> array[int]:
    size, base = draw(sizes), draw(st.sampled_from([1, 1000]))
    found = array("i", range(base, base + size))
    for at, id_ in draw(st.dictionaries(st.integers(0, 400), ids, max_size=3)).items():
        if at < size:
            found[at] = id_
    return found


def chunks_of(slots: array[int]) -> dict[int, array[int]]:
    return {at // CHUNK_SLOTS: slots[at : at + CHUNK_SLOTS] for at in range(0, len(slots), CHUNK_SLOTS)}


def applied(stored: dict[int, array[int]], diff: ChunkDiff) -> dict[int, array[int]]:
    """As the statements do it: update, insert, delete what lies beyond."""
    after = dict(stored)
    for chunk, slots in diff.changed:
        assert chunk in stored
        after[chunk] = slots
    for chunk, slots in diff.added:
        assert chunk not in stored
        after[chunk] = slots
    if diff.shrunk:
        after = {chunk: slots for chunk, slots in after.items() if chunk < diff.chunks}
    return after


@given(members(), members())
@example(array("i"), array("i"))
def test_applied_to_the_stored_it_gives_the_incoming(stored: array[int], incoming: array[int]) -> None:
    """Growing, shrinking, changing and all at once, down to nothing and up from it."""
    diff = diff_chunks(chunks_of(stored), incoming)
    assert applied(chunks_of(stored), diff) == chunks_of(incoming)
    assert diff.chunks == len(chunks_of(incoming))


@given(members(), members())
def test_what_is_equal_is_not_written(stored: array[int], incoming: array[int]) -> None:
    """Every chunk that is written differs, and a catalog is shrunk only when there is something to delete."""
    before = chunks_of(stored)
    diff = diff_chunks(before, incoming)
    assert all(before[chunk] != slots for chunk, slots in diff.changed)
    assert diff.shrunk == (len(before) > diff.chunks)
    same = diff_chunks(before, stored)
    assert (same.changed, same.added, same.shrunk) == ([], [], False)


@given(members().filter(len), st.data())
def test_one_slot_is_one_chunk(stored: array[int], data: st.DataObject) -> None:
    """A single changed resource rewrites only the row that it stands in."""
    at = data.draw(st.integers(0, len(stored) - 1))
    incoming = array("i", stored)
    incoming[at] = incoming[at] % (2**31 - 1) + 1
    diff = diff_chunks(chunks_of(stored), incoming)
    assert [chunk for chunk, _ in diff.changed] == [at // CHUNK_SLOTS]
    assert (diff.added, diff.shrunk) == ([], False)


def test_a_missing_chunk_is_added_and_one_too_many_goes() -> None:
    """What the table holds is taken as it is, also when a chunk in the middle is gone."""
    slots = array("i", range(1, 3 * CHUNK_SLOTS + 1))
    stored = chunks_of(slots)
    del stored[1]
    stored[7] = array("i", [1])
    diff = diff_chunks(stored, slots)
    assert [chunk for chunk, _ in diff.added] == [1]
    assert (diff.changed, diff.shrunk) == ([], True)
    assert applied(stored, diff) == chunks_of(slots)
