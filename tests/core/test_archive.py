"""Archives without a world: what is written is read, however it is cut and whoever wrote it, and bad ones cost nothing."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import tracemalloc
from datetime import UTC, datetime

import pytest

from ingest.config.settings import Config
from ingest.core.archive import comparing
from ingest.core.archive.anonymize import Anonymizer
from ingest.core.archive.members import Metadata, Unfit, member, metadata_member, read_member
from ingest.core.archive.tar import ArchiveReader, ArchiveWriter, Broken, Member
from ingest.engine.archiving import PROBLEMS_MAX, Inspector, Problem, Tally
from ingest.front.multipart import PartReader, boundary_of
from ingest.front.refusal import Refusal

LIMIT = 1024 * 1024
FILES = [
    ("puppetdb-bak/facts/a.json", b"{}"),
    ("puppetdb-bak/facts/" + "long" * 100 + "/\u00fc.json", b"x" * 512),
    ("empty", b""),
    ("\u2603" * 60, b"y" * 100_001),
]


def read(archive: bytes, cut: int = 10**9, limit: int = LIMIT) -> list[Member]:
    reader = ArchiveReader(limit)
    found = [one for at in range(0, len(archive), cut) for one in reader.feed(archive[at : at + cut])]
    reader.finish()
    return found


def written() -> bytes:
    writer = ArchiveWriter(1)
    return b"".join(writer.add(*file) for file in FILES) + writer.finish()


@pytest.mark.parametrize("cut", [1, 7, 512, 10**9])
def test_what_is_written_is_read_however_it_is_cut(cut: int) -> None:
    """Whole, byte by byte, and in between."""
    assert read(written(), cut) == [Member(*file) for file in FILES]


def test_another_library_reads_what_is_written() -> None:
    """Long names and such of many alphabets too."""
    with tarfile.open(fileobj=io.BytesIO(written())) as archive:
        assert [(one.name, archive.extractfile(one).read()) for one in archive] == FILES  # type: ignore[union-attr]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("cut", [3, 10**9])
def test_what_others_write_is_read(form: int, cut: int) -> None:
    """In each of the forms that there are; padded at the end, and as several gzips behind each other."""
    files = [file for file in FILES if form != tarfile.USTAR_FORMAT or len(file[0].encode()) < 100]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for name, body in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid = len(body), 1.5, 2**40 if form == tarfile.GNU_FORMAT else 0
            archive.addfile(info, io.BytesIO(body))
    plain = made.getvalue()
    cut_at = len(plain) // 2
    for packed in (
        gzip.compress(plain),
        gzip.compress(plain[:cut_at]) + gzip.compress(plain[cut_at:]),
        gzip.compress(plain) + b"\0" * 1000,
        gzip.compress(plain + b"behind the end" * 100),
    ):
        assert read(packed, cut) == [Member(*file) for file in files]


def test_whatever_is_cut_off_is_missed() -> None:
    """At every place it is told, and never half a file given."""
    whole = written()
    files = [Member(*file) for file in FILES]
    for size in range(0, len(whole), 5):
        reader = ArchiveReader(LIMIT)
        found = list(reader.feed(whole[:size]))
        assert found == files[: len(found)]
        with pytest.raises(Broken):
            reader.finish()


def test_damage_is_told_and_no_more() -> None:
    """Bytes that flip give Broken, or members; nothing else is raised."""
    whole, chance = written(), random.Random(7)
    plain = gzip.decompress(whole)
    for _ in range(300):
        damaged = bytearray(plain)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            read(gzip.compress(bytes(damaged), 1))
        except Broken:
            pass
    for text in (b"", b"PK\3\4", b"\x1f\x8b", b"\x1f\x8b" + b"\xff" * 100, gzip.compress(b"no tar" * 100)):
        with pytest.raises(Broken):
            read(text)


@pytest.mark.parametrize("kind", ["file", "pax", "gnu"])
def test_a_bomb_costs_no_memory(kind: str) -> None:
    """A file of 300 MB is passed over and named, a name of that size ends it."""
    size = 300_000_000
    made = io.BytesIO()
    with gzip.GzipFile(fileobj=made, mode="wb", compresslevel=1) as packed:
        info = tarfile.TarInfo("puppetdb-bak/facts/huge.json")
        info.size = size
        info.type = {"file": b"0", "pax": b"x", "gnu": b"L"}[kind]
        packed.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(size // 1_000_000):
            packed.write(b"0" * 1_000_000)
        packed.write(b"\0" * (-size % 512))
        after = tarfile.TarInfo("after")
        packed.write(after.tobuf() + b"\0" * 1024)
    tracemalloc.start()
    try:
        if kind == "file":
            first, second = read(made.getvalue())
            assert (first.body, second) == (None, Member("after", b""))
            assert str(size) in first.problem
        else:
            with pytest.raises(Broken, match=str(size)):
                read(made.getvalue())
        assert tracemalloc.get_traced_memory()[1] < 20 * LIMIT
    finally:
        tracemalloc.stop()


def test_a_great_many_files_cost_no_memory() -> None:
    """Nothing of a file that has been read is kept, nor of problems more than a hundred."""
    writer, reader, tally = ArchiveWriter(0), ArchiveReader(LIMIT), Tally()
    inspector = Inspector(Config())
    tracemalloc.start()
    try:
        for number in range(5000):
            for one in reader.feed(writer.add(f"no/{number:0200}", b"x")):
                found = inspector.look(one, datetime.now(UTC))
                assert isinstance(found, Problem)
                tally.miss(found)
        assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    finally:
        tracemalloc.stop()
    assert len(tally.problems) == PROBLEMS_MAX
    assert tally.missed > 3000  # the compressor has the others


def test_a_file_is_the_command_that_its_folder_says() -> None:
    """And back again; the version is that of the archive's metadata."""
    metadata = Metadata()
    assert read_member(*metadata_member("2026-11-01T10:00:00.000Z"), metadata) is None
    name, body = member("catalogs", {"certname": "a/../b", "producer_timestamp": "x"})
    assert name.startswith("puppetdb-bak/catalogs/a%2F..%2Fb-")
    command = read_member(f"./{name}", body, metadata)
    assert command is not None
    assert (command.name, command.certname) == ("replace catalog", "a/../b")
    assert json.loads(command.body) == {
        "command": "replace catalog", "version": 9, "certname": "a/../b",
        "payload": {"certname": "a/../b", "producer_timestamp": "x"},
    }  # fmt: skip
    older = Metadata()
    read_member(
        "puppetdb-bak/export-metadata.json", b'{"command_versions": {"replace_facts": 3, "x": "y"}}', older
    )
    old = read_member("puppetdb-bak/facts/a.json", b'{"certname": "a"}', older)
    assert old is not None
    assert json.loads(old.body)["version"] == 3


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"command_versions": {"replace_facts": "5"}}', '{"command_versions": {"replace_facts": true}}',
     '{"command_versions": {"replace_facts": 4}}'],
)  # fmt: skip
def test_metadata_that_say_nothing_are_told(text: str) -> None:
    """Also those that come after what they are about, and say something else than was assumed."""
    metadata = Metadata()
    read_member("puppetdb-bak/facts/a.json", b'{"certname": "a"}', metadata)
    with pytest.raises(Exception) as told:  # noqa: PT011  one of two, both told by their reason
        read_member("puppetdb-bak/export-metadata.json", text.encode(), metadata)
    assert getattr(told.value, "reason", "") in ("metadata", "invalid")


@pytest.mark.parametrize(
    "name",
    ["puppetdb-bak/other/a.json", "puppetdb-bak/facts/a.txt", "facts/a.json", "../puppetdb-bak/facts/a.json", "",
     "puppetdb-bak/facts/.json", "puppetdb-bak//a.json", "/puppetdb-bak/facts/a.json"],
)  # fmt: skip
def test_other_names_are_no_commands(name: str) -> None:
    """Whatever their contents."""
    with pytest.raises(Unfit, match="called"):
        read_member(name, b'{"certname": "a"}', Metadata())


@pytest.mark.parametrize("cut", [1, 2, 5, 10**9])
@pytest.mark.parametrize("body", [b"", b"\r\n--x", b"\r\n--boundary\r", bytes(range(256)) * 20])
def test_a_part_is_read_however_it_is_cut(cut: int, body: bytes) -> None:
    """Among others, with a boundary's beginning in it, and with nothing in it."""
    text = b'--boundary-1\r\nContent-Disposition: form-data; name="x"\r\n\r\nnot this'
    text += (
        b'\r\n--boundary-1\r\ncontent-disposition: form-data; name="archive"; filename="a"\r\nX: y\r\n\r\n'
        + body
    )
    text += b'\r\n--boundary-1\r\nContent-Disposition: form-data; name="archive"\r\n\r\nnor this\r\n--boundary-1--\r\nend'
    reader = PartReader(boundary_of('multipart/form-data; a=b; boundary="boundary-1"'), "archive")
    found = b"".join(one for at in range(0, len(text), cut) for one in reader.feed(text[at : at + cut]))
    assert (found, reader.found, reader.is_whole) == (body, True, True)


def test_a_part_that_has_no_end_is_not_whole() -> None:
    """Nor does a head without an end grow for ever."""
    reader = PartReader(b"b", "archive")
    head = b'--b\r\nContent-Disposition: form-data; name="archive"\r\n\r\n'
    assert b"".join(reader.feed(head + b"z" * 100)).startswith(b"zz")
    assert (reader.found, reader.is_whole) == (True, False)
    with pytest.raises(Refusal):
        list(PartReader(b"b", "archive").feed(b"--b\r\n" + b"h" * 100_000))


def test_what_belongs_together_still_does() -> None:
    """A name is replaced by the same in a catalog, its edges and its tags, and by another one with another key."""
    catalog = {
        "certname": "web", "producer": "web", "environment": "production", "transaction_uuid": None,
        "resources": [
            {"type": "My::Type", "title": "one", "exported": False, "tags": ["my::type"],
             "parameters": {"require": "My::Type[two]", "password": "hush", "n": 5}},
            {"type": "My::Type", "title": "two", "exported": False, "tags": [], "parameters": {}},
        ],
        "edges": [{"source": {"type": "My::Type", "title": "one"}, "target": {"type": "My::Type", "title": "two"},
                   "relationship": "contains"}],
    }  # fmt: skip
    full = Anonymizer("full", b"k" * 32)
    one = full.replace("catalogs", catalog)
    first, second = one["resources"]
    assert first["parameters"]["require"] == f"{second['type']}[{second['title']}]"
    assert one["edges"][0]["source"] == {"type": first["type"], "title": first["title"]}
    assert first["tags"] == [first["type"].lower()]
    assert one["certname"] == one["producer"] != "web"
    assert full.replace("facts", {"certname": "web", "values": {}})["certname"] == one["certname"]
    assert Anonymizer("full", b"l" * 32).replace("catalogs", catalog)["certname"] != one["certname"]
    text = json.dumps(one)
    assert not [word for word in ("web", "My::", "hush", '"one"', "two", "production") if word in text]
    low = json.dumps(Anonymizer("low", b"k" * 32).replace("catalogs", catalog))
    assert "My::Type" in low
    assert "hush" not in low
    assert catalog["certname"] == "web"  # what was given is as it was


def test_what_differs_is_named_without_values() -> None:
    """Which resource, and which parameters of it; a value may be secret."""

    def catalog(**parameters: object) -> dict[str, object]:
        one = {"type": "User", "title": "root", "tags": ["b", "a"], "parameters": parameters, "resource": "1"}
        return {
            "certname": "a",
            "hash": str(parameters),
            "version": 1,
            "resources": {"data": [one]},
            "edges": None,
        }

    assert list(comparing.compare_catalogs(catalog(a=1.0), catalog(a=1))) == []
    (line,) = comparing.compare_catalogs(catalog(password="hush", same=1), catalog(password="hash", same=1))
    assert line == "resources: 1 differ: User[root] (password)"
    assert list(comparing.compare_catalogs(None, catalog())) == ["only here"]
    facts = [
        {"certname": "a", "facts": {"data": [{"name": f"f{n}", "value": n} for n in range(count)]}}
        for count in (1, 30)
    ]
    (line,) = comparing.compare_factsets(*facts)
    assert line.startswith("facts: 29 only here: f1, f10, f11")
    assert line.endswith("and 19 more")


def test_inputs_are_compared_in_whatever_order_they_stand() -> None:
    """PuppetDB gives pairs of a hash and a path."""
    pairs = [["a" * 64, "manifests/a.pp"], ["b" * 64, "manifests/b.pp"]]
    assert list(comparing.compare_inputs({"inputs": pairs}, {"inputs": pairs[::-1]})) == []
    (line,) = comparing.compare_inputs({"inputs": pairs}, {"inputs": pairs[:1]})
    assert line == f"inputs: 1 only there: {'b' * 64} manifests/b.pp"
