"""docs/trainer/steps.md lists what happens to one batch, function by function: the list is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import trainer_ranks
from shard_files import noise_folder
from traced_batch import Call, Hop, calls, train

PAGE = Path(__file__).parents[2] / "docs" / "trainer" / "steps.md"
LINE = re.compile(r"^(\d+)\. `([\w/]+\.py)` `([\w.]+)`: .+")
SECTION = "## What happens to one batch\n"
IN_A_WORKER = "**In a loader worker**"
WAITING = "**In the rank, waiting"
ON_CUDA = "(CUDA only)"


def section() -> str:
    return PAGE.read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]


def listed(text: str) -> list[Hop]:
    return [Hop(*found.group(2, 3)) for found in map(LINE.match, text.splitlines()) if found]


def test_the_list_is_numbered_without_gaps() -> None:
    numbers = [int(found[1]) for found in map(LINE.match, section().splitlines()) if found]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 20


@pytest.mark.parametrize("hop", listed(section()), ids=":".join)
def test_every_function_of_the_list_exists(hop) -> None:
    assert hop.code().co_filename.endswith(hop.file)


@pytest.fixture(scope="module")
def first_calls(tmp_path_factory) -> list[Call]:
    """Of a training with a loader worker and everything on that the list names."""
    folder = tmp_path_factory.mktemp("one-batch")
    noise_folder(folder)
    config = {
        "data": {"kind": "ImageFolder", "path": str(folder), "imageSize": 32, "workers": 1},
        "model": {"name": "bninception"},
        "batch": {"global": 8},
        "maxSteps": 1,
        "precision": "FP32",
        "accelerator": {"device": "cpu"},
        "augmentation": {"mixup": 0.2, "randomErasing": 0.5},
        "weightAverage": {"decay": 0.9},
    }
    hops = listed(section())
    notes = folder / "notes"
    process = trainer_ranks.CONTEXT.Process(target=train, args=(config, hops, str(notes)))
    process.start()
    process.join(150)
    assert process.exitcode == 0
    return calls(notes, hops)


def test_the_rank_calls_its_functions_in_the_order_of_the_list(first_calls) -> None:
    before, _, rest = section().partition(IN_A_WORKER)
    after = rest.partition(WAITING)[2]
    expected = listed("\n".join(line for line in after.splitlines() if ON_CUDA not in line))
    rank = first_calls[0].process
    called = [call.hop for call in first_calls if call.process == rank]
    in_the_list = [*listed(before), *expected]
    # The last epoch's evaluation runs some of a worker's functions in the rank, later.
    assert [hop for hop in called if hop in in_the_list] == in_the_list


def test_the_loader_worker_does_its_part_before_the_rank_has_the_batch(first_calls) -> None:
    rank = first_calls[0].process
    worker = next(call.process for call in first_calls if call.process != rank)
    own = [call for call in first_calls if call.process == worker]
    part = section().partition(IN_A_WORKER)[2].partition(WAITING)[0]
    assert [call.hop for call in own] == listed(part)
    times = {call.hop: call.nanoseconds for call in first_calls if call.process == rank}
    started = times[Hop("data/workers.py", "Workers.batches")]
    received = times[Hop("data/encoded.py", "EncodedImages._checked")]
    assert started < own[0].nanoseconds < own[-1].nanoseconds < received
