"""Data, checkpoints and figures in object stores: samples and weights as from folders, and errors
that help.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch

import cifar_files
import trainer_ranks
from inception_trainer import models, storage, stores
from inception_trainer.checkpoint import checksums
from inception_trainer.checkpoint.object_store import best_of
from inception_trainer.comm import Comm
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.data import open_splits
from inception_trainer.data.images import files_to_classify, image_files
from inception_trainer.errors import (
    ConfigError,
    DataError,
    InputMissing,
    StorageFailed,
    StoreFailed,
)
from inception_trainer.modes.common import Run
from inception_trainer.reporting import outputs
from inception_trainer.stores import Remote, place
from inception_trainer.weights import trained_network
from inception_trainer.weights.exported_network import ExportedFile
from inception_trainer.weights.load import local_file, open_weights
from launchers import wait_for
from object_store import OWN_FOLDERS, STORES, new_place, upload
from shard_files import png, same_data
from trainer_ranks import TINY

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("copies_of_indices")]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return new_place("memory", tmp_path, monkeypatch)


@pytest.fixture(params=STORES)
def url(
    request: pytest.FixtureRequest, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> str:
    return new_place(request.param, tmp_path_factory.mktemp("store"), monkeypatch)


@pytest.fixture(params=STORES[1:])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A store that other processes see."""
    return new_place(request.param, tmp_path_factory.mktemp("store"), monkeypatch)


def image_list(root: Path) -> None:
    for split, count in (("train", 5), ("val", 2)):
        for number in range(count):
            path = root / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
        (root / f"{split}.txt").write_text(
            "".join(f"{number}.png {number % 3}\n" for number in range(count))
        )
    (root / "classes.txt").write_text("a\nb\nc\nd\n")


def cifar10(root: Path) -> None:
    (root / "cifar-10-batches-py").mkdir(parents=True)
    for number, name in enumerate(
        [f"data_batch_{batch}" for batch in range(1, 6)] + ["test_batch"]
    ):
        pixels = np.random.default_rng(number).integers(0, 256, (3, 3072), dtype=np.uint8)
        content = {b"data": pixels, b"labels": [0, 1, number]}
        (root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content, protocol=2))


def image_folder(root: Path) -> None:
    same_data(root)[0].rename(root / "moved")


def shards(root: Path) -> None:
    same_data(root)[1].rename(root / "moved")


KINDS = {
    "ImageFolder": image_folder,
    "ImageList": image_list,
    "WebDataset": shards,
    "Cifar10": cifar10,
    "Cifar100": cifar_files.python_layout,
}


def opened(kind: str, path: object, workers: int = 0, **keys: Any) -> Any:
    return open_splits(
        from_mapping(
            {"data": {"kind": kind, "path": str(path), "imageSize": 32, "workers": workers, **keys}}
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_data_in_a_store_is_that_of_the_folder(tmp_path, url, kind) -> None:
    KINDS[kind](tmp_path)
    root = tmp_path / "moved" if (tmp_path / "moved").exists() else tmp_path
    upload(root, url)
    local, remote = (
        opened(kind, root),
        opened(kind, f"{url}/", workers=0 if url.startswith("memory") else 1),
    )
    assert (remote.num_classes, remote.class_names) == (local.num_classes, local.class_names)
    for here, there in ((local.train, remote.train), (local.val, remote.val)):
        assert len(here) == len(there)
        batches = [np.arange(len(here))[::-1].copy(), np.array([0])]
        with there.stream(batches, 3) as stream:
            for indices, batch in zip(batches, stream, strict=True):
                expected = here.batch(indices, 3)
                assert torch.equal(batch.images, expected.images)
                assert torch.equal(batch.labels, expected.labels)
    remote.close()


def test_shards_by_name_pattern_and_folder(tmp_path, url) -> None:
    upload(same_data(tmp_path)[1], url)
    upload(tmp_path / "shards", f"{url}/all")
    for train, val in (
        ("train-{0000..0002}.tar", "val-*.tar"),
        ("all/train-*.tar", "val-{0000,0001,0002}.tar"),
    ):
        found = opened("WebDataset", url, trainShards=train, valShards=val)
        assert (len(found.train), len(found.val)) == (40, 9)
    assert len(opened("WebDataset", f"{url}/all").train) == 40


def test_a_shard_that_is_cut_is_named(tmp_path, url) -> None:
    folder = same_data(tmp_path)[1]
    content = (folder / "train-0001.tar").read_bytes()
    (folder / "train-0001.tar").write_bytes(content[: len(content) // 1024 // 2 * 512])
    upload(folder, url)
    with pytest.raises(DataError, match=rf"{url}/train-0001\.tar is cut"):
        opened("WebDataset", url)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("ImageFolder", ["no folder", "expected train/<class>"]),
        ("ImageList", ["no file", "train.txt"]),
        ("WebDataset", ["no folder"]),
        ("Cifar10", ["no CIFAR-10 in", "no folder"]),
        ("Cifar100", ["no CIFAR-100 in", "no folder"]),
    ],
)
def test_missing_data_is_named(url, kind, words) -> None:
    with pytest.raises(InputMissing) as caught:
        opened(kind, url)
    for word in (url, *words):
        assert word in str(caught.value)
    upload_one = Remote(url) / "other" / "a.txt"
    upload_one.write_bytes(b"x")
    if kind != "ImageList":
        with pytest.raises(InputMissing, match=r"other/"):
            opened(kind, url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "s4://bucket/data",
            "Protocol not known: s4.*use a path, or a URL such as s3://bucket/folder",
        ),
        ("gs://bucket/data", r"gs://bucket/data.*needs the package gcsfs; add it to the image"),
    ],
)
def test_stores_that_cannot_be_used_are_explained(url, words) -> None:
    with pytest.raises(ConfigError, match=words):
        opened("ImageFolder", url)


def failing(error: Exception) -> Any:
    def fail(*_arguments: Any, **_keys: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (OSError("timed out"), StoreFailed, "OSError: timed out"),
        (PermissionError("Forbidden"), ConfigError, "Forbidden; give the container credentials"),
    ],
)
def test_a_store_that_fails_makes_no_image_corrupt(
    tmp_path, memory, monkeypatch, error, expected, words
) -> None:
    upload(same_data(tmp_path)[0], memory)
    train = opened("ImageFolder", memory).train
    fs, _ = stores.filesystem(memory)
    monkeypatch.setattr(type(fs), "cat_file", failing(error))
    monkeypatch.setattr(storage, "PATIENCE", 0.2)
    with pytest.raises(expected, match=words):
        train.batch(np.arange(2), 0)


def test_a_store_that_fails_is_not_taken_for_one_that_holds_nothing(memory, monkeypatch) -> None:
    fs, _ = stores.filesystem(memory)
    monkeypatch.setattr(type(fs), "info", failing(OSError("timed out")))
    with pytest.raises(StoreFailed, match="OSError: timed out"):
        Remote(memory).is_dir()


def test_an_image_that_is_gone(tmp_path, memory) -> None:
    upload(same_data(tmp_path)[0], memory)
    train = opened("ImageFolder", memory).train
    Remote(train.name(0)).remove()
    with pytest.raises(InputMissing, match="was there at the start and is gone"):
        train.batch(np.arange(1), 0)


def test_a_program_in_a_store_is_fetched_by_every_rank(tmp_path, memory, monkeypatch) -> None:
    """What the first rank has fetched lies in another pod."""

    class Second(Comm):
        def from_first(self, produce: Any) -> Any:
            return Path("/copy/of/the/first/rank") / Path(produce()).name

    (Remote(memory) / "x.onnx").write_bytes(b"program")
    read: list[bytes] = []

    def opened(path: Path) -> Any:
        read.append(path.read_bytes())
        return ExportedFile(path, lambda images: images.mean((2, 3)), {})

    monkeypatch.setattr(trained_network, "open_exported", opened)
    job = {"mode": "Evaluate", "data": {"kind": "Digits"}, "model": {"weights": f"{memory}/x.onnx"}}
    trained_network.open_trained(from_mapping(job), Second(0, 1, "gloo"), torch.device("cpu"))
    assert read == [b"program"]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"model": {"weights": "https://a.example/w.pt?sig=1"}}, "https://a.example/w.pt"),
        ({"model": {"weights": "/w/w.pt"}}, "/tmp/copy/w.pt"),
        ({"checkpoint": {"path": "s3://b/runs/"}}, "s3://b/runs: w.pt"),
        ({"checkpoint": {"path": "/runs"}}, "/tmp/copy/w.pt"),
    ],
)
def test_summaries_say_where_weights_come_from(job, expected) -> None:
    """Not where the copy lay that is gone with the process."""
    config = from_mapping({"mode": "Evaluate", "data": {"kind": "Digits"}, **job})
    assert trained_network.origin(config, Path("/tmp/copy/w.pt")) == expected


def test_summaries_say_where_files_are_found() -> None:
    for output, expected in (("s3://b/out/", "s3://b/out/infer/x.csv"), ("/out", "/tmp/m/x.csv")):
        config = from_mapping(
            {
                "mode": "Infer",
                "model": {"weights": "/w.pt"},
                "inference": {"path": "/photos"},
                "output": {"path": output},
            }
        )
        run: Any = SimpleNamespace(config=config)
        assert Run.place_of(run, Path("/tmp/m/x.csv")) == expected


def test_images_to_classify_are_those_of_the_folder(tmp_path, url) -> None:
    folder = same_data(tmp_path)[0]
    (folder / "labels.txt").write_text("no image")
    upload(folder, url)
    config = from_mapping(
        {"data": {"kind": "ImageFolder", "path": str(folder), "imageSize": 32}}
    ).data
    here, there = (
        files_to_classify(image_files(root), root, config) for root in (folder, place(url))
    )
    count = len(here.dataset)
    assert count == len(there.dataset) > 0
    assert [here.name(index) for index in range(count)] == [
        there.name(index) for index in range(count)
    ]
    both = (images.dataset.batch(np.arange(count), 0).images for images in (here, there))
    assert torch.equal(*both)
    one = place(f"{url}/{here.name(0)}")
    assert image_files(one) == [str(one)]
    with pytest.raises(InputMissing, match=r"inference\.path: no images .* no folder"):
        image_files(place(f"{url}/nowhere"))


@pytest.mark.usefixtures("small_bninception")
def test_weights_are_fetched_with_their_checksum(tmp_path, url) -> None:
    file = tmp_path / "weights" / "bninception.pth"
    file.parent.mkdir()
    torch.save(models.create("bninception", 3).state_dict(), file)
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    checksums.beside(file).write_bytes(checksums.entry(checksum, file.name))
    upload(file.parent, url)
    upload(file.parent, f"{url}/other")
    source = f"{url}/{file.name}"
    assert open_weights("bninception", local_file(source)).classes == 3
    assert local_file(source) is local_file(source)
    (Remote(url) / f"{file.name}.sha256").write_bytes(checksums.entry("0" * 64, file.name))
    local_file.cache_clear()
    with pytest.raises(DataError, match=r"bninception\.pth is damaged"):
        open_weights("bninception", local_file(source))
    assert open_weights("bninception", local_file(f"{url}/other/{file.name}")).classes == 3
    with pytest.raises(InputMissing, match=r"model\.weights: no object .*/none\.pth"):
        local_file(f"{url}/none.pth")


@pytest.mark.usefixtures("small_bninception")
def test_weights_come_from_a_web_server(tmp_path) -> None:
    torch.save(models.create("bninception", 3).state_dict(), tmp_path / "bninception.pth")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            file = local_file(f"http://127.0.0.1:{server.server_port}/bninception.pth")
        finally:
            server.shutdown()
    assert open_weights("bninception", file).classes == 3


class Answers(http.server.BaseHTTPRequestHandler):
    """A web server, or a proxy, that has some addresses and refuses all others."""

    content: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        content = self.content.get(self.path)
        self.send_response(403 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The address of such a server, and what it has."""
    monkeypatch.setattr(Answers, "content", {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", Answers.content
        finally:
            server.shutdown()


@pytest.mark.usefixtures("small_bninception")
@pytest.mark.parametrize(
    "query", ["", "?download=true", "?X-Signature=a/b/c%2Bd&name=x.pth", "#v1"]
)
def test_the_format_of_weights_follows_from_the_path_of_their_url(
    tmp_path, web, query, caplog
) -> None:
    """Their checksum is asked for as well, with the same signature; a refusal means none."""
    address, content = web
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(models.create("bninception", 3).state_dict(), file)
    asked = query.partition("#")[0]
    content[f"/a/my%20weights.safetensors{asked}"] = file.read_bytes()
    source = f"{address}/a/my%20weights.safetensors{query}"
    caplog.set_level("INFO")
    copy = local_file(source)
    assert copy.name == "my weights.safetensors"
    assert open_weights("bninception", copy).classes == 3
    assert "Signature" not in caplog.text
    content[f"/a/my%20weights.safetensors.sha256{asked}"] = checksums.entry("0" * 64, "weights")
    local_file.cache_clear()
    with pytest.raises(DataError, match="is damaged"):
        open_weights("bninception", local_file(source))
    for wrong in (f"{address}/b.pth?secret=1", f"{address}/b.pth"):
        with pytest.raises(ConfigError, match=r"/b\.pth: ClientResponseError: 403") as refusal:
            local_file(wrong)
        assert "secret" not in str(refusal.value)


def test_weights_come_through_a_proxy(web, monkeypatch) -> None:
    address, content = web
    content["http://weights.invalid/a.pth"] = b"weights"
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", address)
    assert local_file("http://weights.invalid/a.pth").read_bytes() == b"weights"


def test_a_long_download_is_no_silent_one() -> None:
    timeout = stores.filesystem("https://weights.invalid/a.pth")[0].client_kwargs["timeout"]
    assert timeout.total is None
    assert timeout.sock_read == stores.LONGEST_SILENCE


def test_weights_that_find_no_room_are_named(memory, monkeypatch) -> None:
    (Remote(memory) / "a.pth").write_bytes(b"weights")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(Path, "write_bytes", failing(full))
    with pytest.raises(StorageFailed, match=r"no copy of a\.pth at .*: ENOSPC"):
        local_file(f"{memory}/a.pth")


class ClientError(Exception):
    """As the client of S3 has it: the reason is in the text alone."""


class AnsweredError(Exception):
    """As the client of web servers has it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}, message='', url='https://host/x?secret=1'")
        self.status = status


EXPIRED = "An error occurred (ExpiredToken) when calling the PutObject operation: no longer valid"
SKEWED = "An error occurred (RequestTimeTooSkewed) when calling the PutObject operation"


@pytest.mark.parametrize(
    ("error", "reason", "expected", "words"),
    [
        (PermissionError("no longer valid"), EXPIRED, StoreFailed, "have expired: renew them"),
        (OSError("The provided token has expired."), "", StoreFailed, "have expired: renew them"),
        (OSError("certificate has expired"), "", StoreFailed, "certificate has expired$"),
        (PermissionError("too large"), SKEWED, StoreFailed, "set the clock of this node"),
        (PermissionError("AccessDenied"), "", ConfigError, "credentials that may do this"),
        (OSError("Forbidden: bucket/x"), "", ConfigError, "credentials that may do this"),
        (AnsweredError(407), "", ConfigError, "credentials that may do this"),
        (AnsweredError(400), "", ConfigError, r"400, message='', url='https://host/x\?\.\.\.'"),
        (AnsweredError(429), "", StoreFailed, "429"),
        (AnsweredError(503), "", StoreFailed, "503"),
    ],
    ids=str,
)
def test_what_a_store_refuses_for_good_and_what_may_pass(error, reason, expected, words) -> None:
    error.__cause__ = ClientError(reason) if reason else None
    with pytest.raises(expected, match=words) as caught, stores.translated_errors("https://host/x"):
        raise error
    assert "secret" not in str(caught.value)


def test_expired_credentials_are_read_again(memory) -> None:
    before = stores.filesystem(memory)[0]
    assert stores.filesystem(memory)[0] is before
    with pytest.raises(StoreFailed), stores.translated_errors(memory):
        raise PermissionError("ExpiredToken")
    assert stores.filesystem(memory)[0] is not before


@pytest.mark.parametrize(
    ("url", "name", "parent"),
    [
        ("s3://bucket/a b/c+d?e#f", "c+d?e#f", "s3://bucket/a b"),
        ("s3://bucket/\u00e4/%20x/", "%20x", "s3://bucket/\u00e4"),
        ("https://host/a/b%20c.pth?d=/e/", "b c.pth", "https://host/a?d=/e/"),
        ("https://host/a%2Fb.pth/#c", "b.pth", "https://host#c"),
        ("/data/a?b", "a?b", None),
    ],
)
def test_names_and_parents_of_urls(url, name, parent) -> None:
    assert stores.file_name(url) == name
    if parent is not None:
        assert Remote(url).name == name
        assert str(Remote(url).parent) == parent
        child = Remote(url).parent / "child"
        assert (child.name, str(child.parent)) == ("child", parent)


def test_file_urls_are_paths(tmp_path) -> None:
    assert place(f"file://{tmp_path}") == tmp_path
    image_list(tmp_path)
    assert len(opened("ImageList", f"file://{tmp_path}").train) == 5


def test_figures_are_mirrored(tmp_path, url) -> None:
    with outputs.folder(url, first=True) as folder:
        assert folder is not None
        (folder / "tensorboard").mkdir()
        (folder / "tensorboard" / "events").write_bytes(b"one")
        (folder / "half.tmp").write_bytes(b"x")
    assert not folder.exists()

    def add_and_fail(folder: Path) -> None:
        assert (folder / "tensorboard" / "events").read_bytes() == b"one"
        (folder / "tensorboard" / "events").write_bytes(b"one two")
        raise KeyError

    with pytest.raises(KeyError), outputs.folder(url, first=True) as folder:
        add_and_fail(folder)
    assert (Remote(url) / "tensorboard" / "events").read_bytes() == b"one two"
    assert Remote(url).names() == ["tensorboard"]
    with outputs.folder(url, first=False) as folder:
        assert folder is None
    with outputs.folder(str(tmp_path), first=False) as folder:
        assert folder == tmp_path


def test_figures_are_pushed_while_a_run_goes_on(url, monkeypatch) -> None:
    monkeypatch.setattr(outputs, "EVERY_SECONDS", 0.01)
    with outputs.folder(url, first=True) as folder:
        assert folder is not None
        (folder / "raport.json").write_bytes(b"line")
        remote = Remote(url) / "raport.json"
        # A push may come between the making of the file and its first byte.
        wait_for("the line", lambda: remote.is_file() and remote.read_bytes() == b"line")


def test_fsspec_is_imported_with_the_first_url_only() -> None:
    code = """
import sys
import inception_trainer.preload, inception_trainer.train.build, inception_trainer.entry
import inception_trainer.data.shards, inception_trainer.data.imagefolder
import inception_trainer.modes.common
from inception_trainer import stores
assert str(stores.place('/data')) == '/data'
print([name for name in sys.modules if name.split('.')[0] in ('fsspec', 's3fs', 'botocore')])
stores.place('memory://a').is_dir()
print('fsspec' in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(stores.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    assert done.stdout.splitlines()[-2:] == ["[]", "True"]


def test_a_job_in_a_store_stops_and_continues_bit_by_bit(tmp_path, shared) -> None:
    """Shards, checkpoints and figures behind URLs, two ranks, stopped in the middle: the same
    weights as on disk.
    """
    shard_folder = same_data(tmp_path)[1]
    data_url, run_url = f"{shared}/data", f"{shared}/runs"
    upload(shard_folder, data_url)

    def config(data: object, checkpoints: object) -> dict[str, Any]:
        own = {"data": {"kind": "WebDataset", "path": str(data), "workers": 1}, "logEverySteps": 1}
        return merge(
            TINY,
            {**own, "checkpoint": {"path": str(checkpoints), "everySteps": 2, "everySeconds": 0}},
        )

    whole = tmp_path / "whole"
    assert trainer_ranks.run(whole, config(shard_folder, whole), 2) == [0, 0]
    parts, remote = tmp_path / "parts", config(data_url, run_url)
    gang = trainer_ranks.start(parts, remote, 2, pause=0.3, environment=OWN_FOLDERS)
    gang.until(lambda: gang.progress()["step"] >= 3)
    gang.signal(signal.SIGTERM)
    assert gang.wait() == [75, 75], gang.output()
    gang = trainer_ranks.start(parts, remote, 2, attempt=2, environment=OWN_FOLDERS)
    assert gang.wait() == [0, 0], gang.output()
    assert "continuing at step" in gang.output()
    expected = torch.load(whole / "checkpoints" / "final.pt", weights_only=True)
    folder = Remote(run_url) / "attempts" / "00000002"
    record = json.loads((folder / "record.json").read_bytes())
    final = torch.load((folder / record["final"]["file"]).open(), weights_only=True)
    assert final["progress"]["step"] == expected["progress"]["step"] == 10
    for name, value in expected["model"].items():
        assert torch.equal(value, final["model"][name]), name
    summary = json.loads((Remote(run_url) / "output" / "summary.json").read_bytes())
    assert (summary["samplesSeen"], summary["attempts"]) == (80, 2)
    log = (Remote(run_url) / "output" / "raport.json").read_text()
    assert [
        line
        for line in (whole / "output" / "raport.json").read_text().splitlines()
        if '"step": [0, 1]' in line
    ]
    assert '"step": [0, 1]' in log, "the first attempt's lines are still there"
    assert best_of(Remote(run_url)) is not None
    evaluation = merge(remote, {"mode": "Evaluate"})
    gang = trainer_ranks.start(tmp_path / "evaluate", evaluation, 2, environment=OWN_FOLDERS)
    assert gang.wait() == [0, 0], gang.output()
    evaluated = json.loads((Remote(run_url) / "output" / "evaluate" / "summary.json").read_bytes())
    assert evaluated["samples"] == 9
