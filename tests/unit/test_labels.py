"""Our tags at vendors that have none."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gpucloud.labels import (
    from_host_name,
    from_text,
    from_words,
    to_host_name,
    to_text,
    to_words,
)
from gpucloud.provider import LaunchSpec, Tagged

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLE me@here"
texts = st.text(max_size=30)


def spec(
    cluster: str = "x", owner: str = "me", rank: int = 0, expires_at: datetime | None = None
) -> LaunchSpec:
    return LaunchSpec("gc-" + "a" * 20, cluster, rank, owner, KEY, expires_at=expires_at)


@given(cluster=texts, owner=texts, rank=st.integers(0, 10_000), lease=st.none() | st.integers(0, 10**6))
def test_tags_come_back_as_they_were(cluster: str, owner: str, rank: int, lease: int | None) -> None:
    ends = None if lease is None else datetime(2026, 11, 21).astimezone() + timedelta(seconds=lease)
    tags = spec(cluster, owner, rank, ends).tags
    assert from_words(to_words(tags)) == tags
    assert from_text(to_text(tags)) == {name: value for name, value in tags.items() if value}
    assert from_host_name(to_host_name(tags, 10_000)) == from_text(to_text(tags))
    assert Tagged.read(from_text(to_text(tags))).token == "gc-" + "a" * 20


@given(cluster=texts, owner=texts)
def test_they_are_made_of_few_characters(cluster: str, owner: str) -> None:
    tags = spec(cluster, owner).tags
    assert re.fullmatch("[A-Za-z0-9._-]+", to_text(tags))
    assert all(re.fullmatch("[a-z-]+:[A-Za-z0-9_-]*", word) for word in to_words(tags))


def test_what_other_people_wrote_is_not_ours() -> None:
    assert from_text("my-machine") == from_text("") == from_text("gc-short.0.x") == {}
    assert from_words(["web", "env:prod", "gpucloud-token:gc-1", "gpucloud-rank:0"]) == {}
    token = "gc-" + "a" * 20
    assert from_words(["web", f"gpucloud-token:{token}"]) == {"gpucloud-token": token}


@given(cluster=texts, owner=texts, longest=st.integers(25, 120))
def test_where_there_is_little_room_whole_tags_are_left_out(cluster: str, owner: str, longest: int) -> None:
    tags = spec(cluster, owner).tags
    text = to_text(tags, longest)
    assert len(text) <= longest
    assert from_text(text).items() <= tags.items()
    assert Tagged.read(from_text(text)).rank == 0


@given(cluster=texts, owner=texts)
def test_a_host_name_is_one_and_has_the_token(cluster: str, owner: str) -> None:
    tags = spec(cluster, owner).tags
    written = to_host_name(tags)
    assert re.fullmatch("[a-z][a-z0-9-]{1,61}[a-z0-9]", written)
    read = from_host_name(written)
    assert read.items() <= tags.items()
    assert read["gpucloud-token"] == "gc-" + "a" * 20


def test_what_is_too_long_for_a_host_name_is_left_out_from_the_end() -> None:
    token = "gc-" + "a" * 20
    assert to_host_name(spec("training", "me").tags) == f"{token}--0--training--me"
    assert to_host_name(spec("x" * 40, "me").tags) == f"{token}--0"
    for name in ("", "web-1", "gc-short--0", f"{token}x--0", f"my-{token}--0"):
        assert from_host_name(name) == {}
