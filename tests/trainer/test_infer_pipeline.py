"""Infer does several things at once: what waits for what, and that the rows stay the same."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from inception_trainer.comm import Comm
from inception_trainer.config.normalization import IMAGENET
from inception_trainer.config.training import from_mapping
from inception_trainer.data import Batch, open_splits
from inception_trainer.modes import infer
from inception_trainer.modes.predictions import SUFFIXES, Row, Writer, open_writer
from inception_trainer.train.prefetch import DEPTH, beside

ROUNDS = [np.arange(at, min(at + 5, 23)) for at in range(0, 23, 5)]


class Device:
    """A classifier whose results come when they are waited for."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.events: list[str] = []

    def start(self, batch) -> infer.Computed:
        number = sum(event.startswith("start") for event in self.events)
        self.events.append(f"start {number}")
        logits = torch.full((len(batch.labels), 3), torch.nan)

        def wait() -> None:
            self.events.append(f"wait {number}")
            logits.copy_(torch.nn.functional.one_hot(batch.labels % 3, 3) * 4.0)

        return infer.Computed(batch, logits, wait)


def classify(device: Device, write: Any = None) -> tuple[list[list[str]], dict[str, Any], int]:
    data = {"kind": "Synthetic", "imageSize": 32, "numClasses": 3, "samples": 92}
    steps: list[tuple[Any, ...]] = []
    run: Any = SimpleNamespace(
        comm=Comm(0, 1, "gloo"),
        accelerator=SimpleNamespace(device=torch.device("cpu")),
        step=lambda *arguments: steps.append(arguments),
        bus=SimpleNamespace(step_times=lambda _: None),
    )
    images: Any = SimpleNamespace(
        dataset=open_splits(from_mapping({"data": data})).val, name="val/{}".format, labelled=True
    )
    work = infer._Work(images, ROUNDS, 7, ("a", "b", "c"))
    file = io.StringIO()
    writer = Writer(None, file, "CSV", 2, labelled=True)
    if write is not None:
        writer.write = write  # type: ignore[method-assign]
    anything: Any = device
    pipeline = infer._Pipeline(run, anything, work, writer)
    readable = pipeline.classify(SimpleNamespace(check=lambda: None))  # type: ignore[arg-type]
    assert [step[:3] for step in steps] == [
        (number, len(indices), "infer") for number, indices in enumerate(ROUNDS, 8)
    ]
    return list(csv.reader(io.StringIO(file.getvalue()))), pipeline.figures(), readable


def test_the_device_has_the_next_batch_before_results_are_waited_for() -> None:
    device = Device(ahead=1)
    classify(device)
    assert device.events == [
        "start 0",
        *[event for n in range(1, 5) for event in (f"start {n}", f"wait {n - 1}")],
        "wait 4",
    ]


def test_a_rank_without_images_in_the_last_round_needs_no_network_that_takes_none() -> None:
    """As Swin of timm does not: of no numbers nobody knows the shape."""

    class Windows(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.reshape(len(images), 3, -1).mean(2)

    device = torch.device("cpu")
    accelerator = SimpleNamespace(
        device=device, autocast=contextlib.nullcontext, compute_type=torch.float32
    )
    run: Any = SimpleNamespace(accelerator=accelerator)
    classifier = infer.Classifier(run, Windows(), IMAGENET)
    for count in (0, 2):
        images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
        computed = classifier.start(Batch(images, torch.zeros(count, dtype=torch.int64)))
        assert computed.best(2).shape == (count, 5)


@pytest.mark.parametrize("ahead", [0, 1, 3, 9])
def test_rows_do_not_depend_on_what_goes_on_at_once(ahead) -> None:
    rows, figures, readable = classify(Device(ahead))
    assert readable == 23
    assert [row[0] for row in rows] == ["image", *(f"val/{number}" for number in range(23))]
    assert all(row[1] == row[3] for row in rows[1:]), "the class with the largest logit"
    assert figures["batchLatency"]["batch"] == 5
    assert 0 < figures["batchLatency"]["p50Seconds"] <= figures["batchLatency"]["maxSeconds"]
    assert set(figures["waitedSeconds"]) == {"images", "results", "rows"}


def test_a_disk_that_fails_ends_the_run() -> None:
    def full(_rows: object) -> None:
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        classify(Device(1), full)
    assert "rows" not in {thread.name for thread in threading.enumerate()}


def test_work_beside_is_done_in_order_and_whole_at_the_end() -> None:
    done: list[int] = []

    def slow(number: int) -> None:
        time.sleep(0.002)
        done.append(number)

    with beside(slow, "slow") as put:
        for number in range(20):
            put(number)
            assert number - len(done) <= DEPTH + 1, "what waits is bounded"
    assert done == list(range(20))


def test_work_beside_is_dropped_when_the_block_fails() -> None:
    done: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def work(number: int) -> None:
        begun.set()
        go.wait(30)
        done.append(number)

    def leave() -> None:
        with beside(work, "left") as put:
            put(0)
            assert begun.wait(30)
            put(1)
            threading.Timer(0.05, go.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert done == [0]


@pytest.mark.parametrize("form", SUFFIXES)
def test_names_that_are_no_text_are_written_and_lead_back(tmp_path: Path, form: str) -> None:
    run: Any = SimpleNamespace(
        config=SimpleNamespace(inference=SimpleNamespace(format=form)),
        comm=Comm(0, 1, "gloo"),
        output=tmp_path / "out",
        settings=SimpleNamespace(attempt=None),
    )
    name = os.fsdecode(b"gr\xfcn.png")
    with open_writer(run, 1, labelled=False) as writer:
        writer.write([Row(name, None, ((0, name, 0.5),)), Row(name)])
    text = (tmp_path / "out" / f"predictions.{SUFFIXES[form]}").read_text(encoding="utf-8")
    if form == "JSONL":
        assert [json.loads(line)["image"] for line in text.splitlines()] == [name, name]
    else:
        assert [row[0] for row in csv.reader(text.splitlines())][1:] == ["gr\\udcfcn.png"] * 2
