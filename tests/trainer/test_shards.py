"""WebDataset shards: found, indexed as tarfile reads them, and trained on exactly as the same
images in folders.
"""

from __future__ import annotations

import json
import os
import tarfile
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset import tariterators

import trainer_ranks
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.data import open_splits, shardindex
from inception_trainer.data import shards as shard_reader
from inception_trainer.data.shardindex import Index, ShardIndex
from inception_trainer.data.shardnames import expand_braces
from inception_trainer.data.shards import Shards, search
from inception_trainer.data.tarindex import Window, members
from inception_trainer.errors import ConfigError, DataError, InputMissing
from shard_files import png, same_data, sample, write_tar
from trainer_ranks import TINY

pytestmark = pytest.mark.usefixtures("copies_of_indices")

original = shard_reader._index_file


def data(root: Path, **keys: Any) -> dict[str, Any]:
    return {"kind": "WebDataset", "path": str(root), "imageSize": 32, "workers": 0, **keys}


def splits(root: Path, **keys: Any) -> Any:
    return open_splits(from_mapping({"data": data(root, **keys)}))


def indexed(path: Path, label_key: str | None = None, window: int = 4096) -> ShardIndex:
    content = path.read_bytes()
    return search(
        lambda offset, count: content[offset : offset + count],
        len(content),
        str(path),
        label_key,
        window,
    )


NAMES = st.lists(
    st.text("abcdefgh/é_", min_size=1, max_size=150).filter(
        lambda name: not name.startswith("/") and "//" not in name
    ),
    max_size=12,
)


@given(
    names=NAMES,
    sizes=st.lists(st.integers(0, 2000), min_size=12, max_size=12),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    mtime=st.sampled_from([0, 1.5]),
    window=st.sampled_from([1, 512, 4096, 1 << 20]),
)
@settings(max_examples=60, deadline=None)
def test_members_are_those_that_tarfile_finds(
    tmp_path_factory, names, sizes, form, mtime, window
) -> None:
    path = tmp_path_factory.getbasetemp() / f"members-{os.getpid()}.tar"
    if form == tarfile.USTAR_FORMAT:
        names = [name for name in names if len(name.encode()) < 100]
    write_tar(
        path, [(name, b"x" * size) for name, size in zip(names, sizes, strict=False)], form, mtime
    )
    content = path.read_bytes()
    through = Window(lambda offset, count: content[offset : offset + count], window)
    with tarfile.open(path) as tar:
        expected = [
            (member.name, member.offset_data, member.size) for member in tar if member.isreg()
        ]
    assert [tuple(member) for member in members(through, len(content), "s")] == expected
    for cut in {0, 511, len(content) // 2, path.stat().st_size - 10240}:
        part = content[: max(0, cut)]
        whole = len(part) >= 512 and not any(part[-512:]) and bool(expected) is False
        if not whole and not _ends(part, expected):
            with pytest.raises(DataError, match="is cut"):
                list(
                    members(
                        lambda offset, count, part=part: part[offset : offset + count],
                        len(part),
                        "s",
                    )
                )


def _ends(part: bytes, expected: list[tuple[str, int, int]]) -> bool:
    """Whether the end mark is still there."""
    _, offset, size = expected[-1] if expected else ("", 0, 0)
    end = offset + -(-size // 512) * 512
    return len(part) >= end + 512


def test_other_members_belong_to_no_sample(tmp_path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("docs", "docs/link.png"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name == "docs" else tarfile.SYMTYPE
            tar.addfile(member)
    write_tar(
        tmp_path / "b.tar",
        [("README", b"x"), ("__meta__.json", b"{}"), *sample("docs/a.v1"[:6], png(0), 3)],
    )
    assert len(indexed(path).labels) == 0
    assert list(indexed(tmp_path / "b.tar").labels) == [3]


def test_samples_are_read_where_they_lie(tmp_path) -> None:
    images = [png(number) for number in range(7)]
    for split, first, last in (("train", 0, 3), ("train", 3, 6), ("val", 6, 7)):
        entries = [
            entry for i in range(first, last) for entry in sample(f"x/{i}", images[i], i % 3)
        ]
        write_tar(tmp_path / split / f"{split}-{first}.tar", entries)
    found = splits(tmp_path)
    assert (len(found.train), len(found.val), found.num_classes) == (6, 1, 3)
    assert found.class_names == ("class-0", "class-1", "class-2")
    assert [found.train._samples.read(i) for i in (5, 0, 3)] == [images[5], images[0], images[3]]
    assert found.train.batch(np.array([4, 1, 2]), None).labels.tolist() == [1, 1, 2]
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\nfish\n")
    assert (splits(tmp_path).num_classes, splits(tmp_path).class_names[3]) == (4, "fish")


@pytest.mark.parametrize("label_key", [None, "class"], ids=["cls", "json"])
def test_shards_of_webdatasets_own_writer(tmp_path, label_key) -> None:
    """What its writer writes is read here as its reader reads it: order, bytes and labels."""
    for split, count in (("train", 20), ("val", 3)):
        (tmp_path / split).mkdir()
        with webdataset.ShardWriter(
            f"{tmp_path}/{split}/part-%06d.tar", maxcount=7, verbose=0
        ) as writer:
            for number in range(count):
                label = (
                    {"cls": number % 5} if label_key is None else {"json": {label_key: number % 5}}
                )
                writer.write({"__key__": f"{split}{number:04d}", "png": png(number), **label})
    theirs = []
    for shard in sorted((tmp_path / "train").glob("*.tar")):
        with shard.open("rb") as file:  # its own opener leaves the last one open
            members = (
                {**member, "__url__": str(shard)} for member in tariterators.tar_file_iterator(file)
            )
            theirs += [*tariterators.group_by_keys(members)]
    assert len(theirs) == 20
    ours = splits(tmp_path, **({} if label_key is None else {"labelKey": label_key})).train
    assert [ours._samples.read(number) for number in range(20)] == [
        entry["png"] for entry in theirs
    ]
    labels = [
        int(s["cls"]) if label_key is None else json.loads(s["json"])[label_key] for s in theirs
    ]
    assert ours.batch(np.arange(20), None).labels.tolist() == labels


@pytest.mark.parametrize("first", ["image", "label"])
def test_labels_of_both_kinds(tmp_path, first) -> None:
    entries = []
    for number in range(5):
        parts = [
            (f"{number}.JPG", b"image"),
            (f"{number}.cls", b" 2\n"),
            (f"{number}.json", b'{"class": %d}' % number),
        ]
        entries += parts if first == "image" else parts[::-1]
    write_tar(tmp_path / "a.tar", entries)
    assert list(indexed(tmp_path / "a.tar").labels) == [2] * 5
    assert list(indexed(tmp_path / "a.tar", "class").labels) == [0, 1, 2, 3, 4]


def test_indexing_reads_once_per_sample(tmp_path) -> None:
    path = write_tar(
        tmp_path / "a.tar", [e for i in range(50) for e in sample(f"{i:04d}", b"x" * 20000, 1)]
    )
    reads = []

    def read(offset: int, count: int) -> bytes:
        reads.append(count)
        with path.open("rb") as file:
            return os.pread(file.fileno(), count, offset)

    found = search(read, path.stat().st_size, "a", None)
    assert len(found.labels) == 50
    assert len(reads) <= 51
    assert max(reads) == 4096


WRONG_SAMPLES = {
    "no label": (
        [("a.png", b"x"), ("b.png", b"x"), ("b.cls", b"1")],
        {},
        ["sample 'a' of", "t-0.tar (offset ", "has no cls but png"],
    ),
    "label in json": (
        [("a.png", b"x"), ("a.json", b"{}")],
        {},
        ["set data.labelKey to the key of its json"],
    ),
    "label in cls": (
        [("a.png", b"x"), ("a.cls", b"1")],
        {"labelKey": "y"},
        ["no json but", "leave out data.labelKey"],
    ),
    "no such key": (
        [("a.png", b"x"), ("a.json", b'{"z": 1}')],
        {"labelKey": "y"},
        ["json, key 'y' (data.labelKey), no class number but None"],
    ),
    "no json": (
        [("a.png", b"x"), ("a.json", b"{")],
        {"labelKey": "y"},
        ["no class number but None"],
    ),
    "json of brackets": (
        [("a.png", b"x"), ("a.json", b"[" * 2000)],
        {"labelKey": "y"},
        ["no class number but None"],
    ),
    "no number": (
        [("a.png", b"x"), ("a.cls", b"cat")],
        {},
        ["in cls no class number but b'cat'", "whole number"],
    ),
    "below zero": ([("a.png", b"x"), ("a.cls", b"-1")], {}, ["no class number but b'-1'"]),
    "no image": (
        [("a.cls", b"1"), ("b.png", b"x")],
        {},
        ["sample 'a'", "no image (jpg, jpeg,", "follow one another"],
    ),
    "two images": (
        [("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")],
        {},
        ["has 2 images: png, jpg"],
    ),
    "one name twice": (
        [("a.png", b"x"), ("a.png", b"x"), ("a.cls", b"1")],
        {},
        ["two members png", "first dot"],
    ),
}


@pytest.mark.parametrize(
    ("entries", "keys", "words"), WRONG_SAMPLES.values(), ids=WRONG_SAMPLES.keys()
)
def test_wrong_samples_are_named(tmp_path, entries, keys, words) -> None:
    write_tar(tmp_path / "t-0.tar", entries)
    with pytest.raises(DataError) as caught:
        indexed(tmp_path / "t-0.tar", keys.get("labelKey"))
    for word in words:
        assert word in str(caught.value)


def test_a_dot_in_what_samples_are_called_makes_no_message_of_a_whole_shard(tmp_path) -> None:
    entries = [(f"photo.{n:04d}.{end}", b"1") for n in range(500) for end in ("jpg", "cls")]
    write_tar(tmp_path / "t-0.tar", entries)
    with pytest.raises(DataError, match="the same up to the first dot") as caught:
        indexed(tmp_path / "t-0.tar")
    assert "but 0000.jpg, 0000.cls, 0001.jpg" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return same_data(tmp_path)[1]


def cut(shard: Path) -> None:
    os.truncate(shard, shard.stat().st_size // 2)


def without_end(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-1]
    os.truncate(shard, last.offset_data + 512)


def scribble(shard: Path) -> None:
    with shard.open("r+b") as file:
        file.write(b"scribble" * 64)


def pack(shard: Path) -> None:
    import gzip

    shard.write_bytes(gzip.compress(shard.read_bytes()))


def below_zero(shard: Path) -> None:
    with shard.open("r+b") as file:
        file.seek(124)
        file.write(b"-0000001000\0")


def below_zero_in_extension(shard: Path) -> None:
    member = tarfile.TarInfo("a.png")
    member.pax_headers = {"size": "-1024"}
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member)


def nothing_in_it(shard: Path) -> None:
    for path in shard.parent.glob("train-*.tar"):
        write_tar(path, [])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            cut,
            [
                "train-0001.tar is cut: it has ",
                "member at offset",
                "copy or write this shard again",
            ],
        ),
        (without_end, ["train-0001.tar is cut", "end mark"]),
        (scribble, ["train-0001.tar has no tar header", "offset 0", "write this shard again"]),
        (below_zero, ["train-0001.tar has no tar header", "offset 0"]),
        (below_zero_in_extension, ["train-0001.tar has a damaged header at offset 512"]),
        (pack, ["train-0001.tar", "packed with gzip; unpack it"]),
        (nothing_in_it, ["train-0000.tar and the 2 shards with it hold no samples"]),
    ],
)
def test_damaged_shards_are_named(shards, damage, words) -> None:
    damage(shards / "train-0001.tar")
    with pytest.raises(DataError) as caught:
        splits(shards)
    for word in words:
        assert word in str(caught.value)


def test_a_shard_that_is_a_link_to_nowhere_is_missing(shards) -> None:
    (shards / "train-0001.tar").unlink()
    (shards / "train-0001.tar").symlink_to("nowhere")
    with pytest.raises(InputMissing, match=r"train-0001\.tar is not there"):
        splits(shards)


def test_a_shard_that_is_cut_or_goes_while_it_is_used(shards) -> None:
    train = splits(shards).train
    gone = splits(shards).train
    cut(shards / "train-0002.tar")
    with pytest.raises(
        DataError, match=r"train-0002\.tar at offset \d+: \d+ of \d+ bytes; the shard was cut since"
    ):
        train.batch(np.array([39]), 0)
    (shards / "train-0002.tar").unlink()
    with pytest.raises(InputMissing, match=r"train-0002\.tar was there at the start and is gone"):
        gone.batch(np.array([39]), 0)


def test_images_that_cannot_be_read_are_named_and_skipped(tmp_path, caplog) -> None:
    entries = [
        entry for i in range(4) for entry in sample(str(i), b"no image" if i == 2 else png(i), 1)
    ]
    write_tar(tmp_path / "train.tar", entries)
    write_tar(tmp_path / "val.tar", entries)
    assert splits(tmp_path, maxCorrupt=1).train.batch(np.arange(4), 0).labels.tolist() == [
        1,
        1,
        -100,
        1,
    ]
    assert f"{tmp_path / 'train.tar'} at offset" in caplog.text
    with pytest.raises(
        DataError,
        match=r"more than 0 images cannot be read \(data.maxCorrupt\), among them .*offset",
    ):
        splits(tmp_path, maxCorrupt=0).train.batch(np.arange(4), 0)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{000..002}.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{2..1}", ["2", "1"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
        ("{a,x{0..1}}.tar", ["a.tar", "x0.tar", "x1.tar"]),
        ("{a,}", ["a", ""]),
    ],
)
def test_braces(pattern, names) -> None:
    assert expand_braces(pattern, "trainShards") == names


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("a-{0..x}", "neither a range"),
        ("{a", "without its counterpart"),
        ("{0..99999999}", "more than 1000000 names"),
        ("/a.tar", "is absolute"),
    ],
)
def test_wrong_braces(pattern, words) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        expand_braces(pattern, "valShards")
    assert str(caught.value).startswith("data.valShards: ")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"trainShards": "train-{0000..0002}.tar", "valShards": "{val-0000,val-0001,val-0002}.tar"},
        {"trainShards": "train-*.tar", "valShards": "val-000?.tar"},
        {"trainShards": "again", "valShards": "val-*.tar"},
    ],
    ids=["names", "braces", "patterns", "folder"],
)
def test_shards_are_found(shards, keys) -> None:
    (shards / "again").mkdir()
    for path in shards.glob("train-*.tar"):
        (shards / "again" / path.name).hardlink_to(path)
    found = splits(shards, **keys)
    assert (len(found.train), len(found.val)) == (40, 9)


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        (
            {"trainShards": "t-*.tar"},
            InputMissing,
            ["looked for t-*.tar (data.trainShards); found: train-0000.tar, train-0001.tar"],
        ),
        (
            {"valShards": "val-{0000..0003}.tar"},
            InputMissing,
            ["data.valShards: no shard", "val-0003.tar; found:"],
        ),
        (
            {"valShards": "*.tar"},
            ConfigError,
            ["data.valShards", "train-0000.tar would be used to train and"],
        ),
    ],
)
def test_shards_that_are_not_there(shards, keys, error, words) -> None:
    with pytest.raises(error) as caught:
        splits(shards, **keys)
    for word in words:
        assert word in str(caught.value)


def test_no_shards_at_all(tmp_path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(
        InputMissing,
        match=r"no shards in .*looked for train/\*\.tar or \*train\*\.tar.*found: train/",
    ):
        splits(tmp_path)
    with pytest.raises(InputMissing, match="no folder"):
        splits(tmp_path / "none")


@pytest.mark.parametrize("key", ["trainShards", "valShards", "labelKey"])
def test_keys_of_shards_belong_to_shards(key) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{key}: only data\.kind WebDataset has it"):
        from_mapping({"data": {"kind": "Digits", key: "x"}})
    with pytest.raises(ConfigError, match=rf"data\.{key}: empty"):
        from_mapping({"data": {"kind": "WebDataset", "path": "/d", key: ""}})


def test_samples_cost_little_memory() -> None:
    """1.3 million samples stay far below 200 MB, because nothing is kept per sample beside
    arrays.
    """
    count = 1_300_000
    numbers = array("q", bytes(8 * count))
    shards = Shards(
        ["a.tar"], Index.of([ShardIndex(numbers, numbers, array("i", bytes(4 * count)))])
    )
    kept = sum(value.nbytes for value in vars(shards).values() if isinstance(value, np.ndarray))
    assert kept < 30e6
    assert len(shards) == count


def test_an_index_serves_the_next_process_until_a_shard_changes(shards, monkeypatch) -> None:
    read = []
    monkeypatch.setattr(
        shard_reader, "_index_file", lambda path, key: read.append(path) or original(path, key)
    )
    first = splits(shards)
    assert len(read) == 6
    again = splits(shards)
    assert len(read) == 6
    assert [again.train._samples.read(i) for i in range(40)] == [
        first.train._samples.read(i) for i in range(40)
    ]
    write_tar(shards / "val-0001.tar", sample("a", png(0), 9))
    assert splits(shards).num_classes == 10
    assert len(read) == 9
    for copy in shardindex.folder().glob("inception-shards-*.npz"):
        copy.write_bytes(copy.read_bytes()[:100])
    splits(shards)
    assert len(read) == 15


@pytest.mark.parametrize("filler", [None, b"\0", b"\xa5"], ids=["cut", "zeroed", "garbled"])
def test_a_torn_copy_of_an_index_is_made_anew(tmp_path, filler) -> None:
    shard = write_tar(tmp_path / "train-0000.tar", sample("a", png(0), 3))
    numbers = array("q", [512, 1024, 4096])
    index = Index.of([ShardIndex(numbers, numbers, array("i", [1, 2, 0]))])
    made = []

    def make() -> Index:
        made.append(1)
        return index

    shardindex.cached_index([str(shard)], None, make)
    [copy] = shardindex.folder().glob("inception-shards-*.npz")
    content = copy.read_bytes()
    for end in range(0, len(content), 3):
        made.clear()
        torn = content[:end] if filler is None else content[:end].ljust(len(content), filler)
        copy.write_bytes(torn)
        found = shardindex.cached_index([str(shard)], None, make)
        # The last zeros are the file's own.
        assert made or torn == content
        assert all(map(np.array_equal, found, index))
        assert copy.read_bytes() == content


def test_workers_read_what_the_process_indexed(shards, monkeypatch) -> None:
    batches = [np.array([39, 1]), np.array([2, 17])]
    train = splits(shards, workers=2).train
    expected = [train.batch(indices, 3) for indices in batches]
    # Whoever indexed again would find nothing.
    for path in shards.iterdir():
        path.rename(path.with_suffix(".moved"))
    with train.stream(batches, 3) as stream:
        for one, two in zip(stream, expected, strict=True):
            assert torch.equal(one.images, two.images)
            assert torch.equal(one.labels, two.labels)
    train.close()


@pytest.mark.timeout(300)
def test_training_on_shards_equals_training_on_folders(tmp_path) -> None:
    """Same images, same order, same weights bit by bit, with two ranks and loader processes."""
    folders, shards = same_data(tmp_path)
    results = []
    for root, kind in ((folders, "ImageFolder"), (shards, "WebDataset")):
        own = tmp_path / kind
        config = merge(
            TINY, {"data": data(root, kind=kind, workers=1), "checkpoint": {"path": str(own)}}
        )
        assert trainer_ranks.run(own, config, 2) == [0, 0]
        results.append(torch.load(own / "checkpoints" / "final.pt", weights_only=True))
        summary = json.loads((own / "output" / "summary.json").read_text())
        assert summary["samplesSeen"] == 80
    assert results[0]["progress"]["step"] == results[1]["progress"]["step"] == 10
    for name, value in results[0]["model"].items():
        assert torch.equal(value, results[1]["model"][name]), name
