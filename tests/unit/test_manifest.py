"""What lies in a tree, packed, as both sides of a push keep it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.remote.agent import manifest
from gpucloud.remote.agent.manifest import FILE, FOLDER, LINK, Changing, block_of, row, rows

names = st.binary(min_size=1, max_size=20).filter(
    lambda name: not {b"/", b"\0"} & {name[i : i + 1] for i in range(len(name))} and name not in {b".", b".."}
)
sizes, times = st.integers(0, 2**63), st.integers(-(2**62), 2**62)
lines = st.one_of(
    st.builds(lambda mode, size, time: (FILE | mode, size, time, b""), st.integers(0, 0o777), sizes, times),
    st.builds(lambda mode: (FOLDER | mode, 0, 0, b""), st.integers(0, 0o777)),
    st.builds(lambda target: (LINK | 0o777, len(target), 0, target), st.binary(min_size=1, max_size=30)),
)
folders = st.dictionaries(names, lines, min_size=1, max_size=6)
listings = st.dictionaries(
    st.lists(names, max_size=3).map(b"/".join),
    folders.map(lambda found: block_of(row(name, *line) for name, line in found.items())),
    max_size=5,
)


@given(found=folders)
def test_rows_are_read_as_they_were_written(found: dict[bytes, tuple[int, int, int, bytes]]) -> None:
    block = block_of(row(name, *line) for name, line in found.items())
    assert {name: tuple(line) for name, *line in rows(block)} == found
    reverse = block_of(row(name, *found[name]) for name in reversed(found))
    assert reverse == block


@given(listing=listings)
def test_a_manifest_is_read_as_it_was_written(listing: dict[bytes, bytes]) -> None:
    assert manifest.decode(manifest.encode(listing)) == listing


@given(listing=listings, data=st.data())
def test_a_damaged_manifest_is_no_manifest(listing: dict[bytes, bytes], data: st.DataObject) -> None:
    text = manifest.encode(listing)
    at = data.draw(st.integers(0, len(text) - 1))
    flipped = bytes([text[at] ^ data.draw(st.integers(1, 255))])
    assert manifest.decode(text[:at] + flipped + text[at + 1 :]) is None
    assert manifest.decode(text[:at]) is None
    assert manifest.decode(text + flipped) is None


@given(block=st.binary(max_size=80))
def test_rows_that_make_no_sense_are_refused_and_never_lead_out(block: bytes) -> None:
    try:
        found = list(rows(block))
    except ValueError:
        return
    for name, *_ in found:
        assert name not in {b"", b".", b".."}
        assert b"/" not in name and b"\0" not in name


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0"])
def test_a_name_that_is_none_is_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="name"):
        list(rows(row(b"fine", FILE, 0, 0) + row(name, FILE, 0, 0)))


@pytest.mark.parametrize("folder", [b"/", b"..", b"a/..", b"a//b", b"/etc", b"a/", b"./a"])
def test_a_folder_outside_the_tree_is_refused(folder: bytes) -> None:
    assert manifest.decode(manifest.encode({folder: row(b"x", FILE, 0, 0)})) is None


@given(listing=listings, data=st.data())
def test_a_listing_is_changed_only_where_it_is_told(listing: dict[bytes, bytes], data: st.DataObject) -> None:
    plain = {(folder, name): tuple(line) for folder, block in listing.items() for name, *line in rows(block)}
    changing = Changing(listing)
    there = st.tuples(st.sampled_from([b"", *listing]), st.one_of(names, st.sampled_from([b"a", b"b"])))
    for _ in range(data.draw(st.integers(0, 8))):
        folder, name = data.draw(st.one_of(there, st.sampled_from(list(plain))) if plain else there)
        if data.draw(st.booleans()):
            line = data.draw(lines)
            changing.put(folder, row(name, *line))
            plain[folder, name] = line
        else:
            changing.drop(folder, name)
            plain.pop((folder, name), None)
    found = changing.listing()
    assert {
        (folder, name): tuple(line) for folder, block in found.items() for name, *line in rows(block)
    } == plain
    assert all(found.values())
