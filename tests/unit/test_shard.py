"""Which shard a job belongs to: one of them, always the same, and each gets its part."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_operator.contract.shard import MOST_SHARDS, Shard, parse_shard, shard_of

COUNTS = st.integers(1, MOST_SHARDS)
NAMES = st.text("ab-09", min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("key", "shards"),
    [
        (("default", "digits"), {2: 1, 3: 0, 5: 3, 32: 13}),
        (("team-a", "resnet-50"), {2: 1, 3: 0, 5: 3, 32: 15}),
        (("team-b", "resnet-50"), {2: 0, 3: 0, 5: 0, 32: 24}),
    ],
)
def test_the_rule_is_that_of_every_release(key: tuple[str, str], shards: dict[int, int]) -> None:
    assert {count: shard_of(key, count) for count in shards} == shards


@given(NAMES, NAMES, COUNTS)
@settings(max_examples=20)
def test_each_job_has_one_shard(namespace: str, name: str, count: int) -> None:
    owners = [i for i in range(count) if Shard(i, count).owns((namespace, name))]
    assert owners == [shard_of((namespace, name), count)]


@pytest.mark.parametrize("count", [2, 3, 7, MOST_SHARDS])
def test_jobs_that_are_numbered_are_spread_evenly(count: int) -> None:
    jobs = [("research", f"sweep-{number}") for number in range(400 * count)]
    parts = Counter(shard_of(job, count) for job in jobs)
    assert len(parts) == count
    # Five standard deviations of a binomial distribution.
    assert all(300 < part < 500 for part in parts.values()), parts


@given(COUNTS, st.data())
@settings(max_examples=20)
def test_a_shard_is_read_as_it_is_written(count: int, data: st.DataObject) -> None:
    shard = Shard(data.draw(st.integers(0, count - 1)), count)
    assert parse_shard(str(shard)) == shard
    assert shard.alone == (count == 1)


@pytest.mark.parametrize(
    "text", ["", "3", "3/3", "1/0", "-1/3", "0/33", "0/3/1", "1 /3", "a/b", "1/3\n", "0/100"]
)
def test_what_is_no_shard_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape("/")):
        parse_shard(text)
