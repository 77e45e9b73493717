"""Mode Preflight: what it finds on real ranks, that it leaves nothing, and each check by itself."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import object_store
import trainer_ranks
from inception_operator.plugin import preflight_results
from inception_operator.pod.defaults import COPY_MIB
from inception_trainer.comm import Comm
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.device import Accelerator
from inception_trainer.errors import ConfigError, PreflightFailed, Stopped
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.modes import preflight, preflight_local, preflight_together
from inception_trainer.modes.preflight_local import CheckpointProbe, Finding
from inception_trainer.stores import Remote
from inception_trainer.train.network import empty_network
from trainer_ranks import TINY

pytestmark = pytest.mark.timeout(300)

CHECKS = preflight_results.CHECKS
SMALL = {"samples": 8, "exchangeMebibytes": 1, "writeMebibytes": 1}


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    place = {"path": str(folder / "runs" / "job-preflight")}
    return merge(TINY, {"mode": "Preflight", "checkpoint": place, "preflight": SMALL, **changes})


def told(output: str) -> dict[tuple[int, str], dict[str, Any]]:
    """The lines of all ranks, by rank and check."""
    mark = f"{preflight.MARK} "
    lines = [json.loads(x[len(mark) :]) for x in output.splitlines() if x.startswith(mark)]
    return {(line["rank"], line["check"]): line for line in lines}


def test_ranks_that_are_fit_say_so_and_leave_nothing(tmp_path: Path) -> None:
    other = tmp_path / "runs" / "job" / "checkpoints" / "step-000000001.pt"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"a checkpoint")
    ranks = trainer_ranks.start(tmp_path, config(tmp_path), 2)
    assert ranks.wait() == [0, 0], ranks.output()
    found = told(ranks.output())
    assert found.keys() == set(itertools.product((0, 1), CHECKS))
    assert all(line["ok"] for line in found.values())
    # As the command reads them.
    read = preflight_results.read(ranks.output().splitlines(), range(2))
    assert {(rank, check) for rank in read for check in read[rank]} == found.keys()
    for (rank, check), line in found.items():
        assert read[rank][check] == {key: line[key] for key in line.keys() - {"rank", "check"}}
    assert found[1, "matmul"]["errorShare"] <= 1
    assert found[1, "data"]["samples"] == 8
    assert [size for size, _, _ in found[0, "allReduce"]["sizes"]] == [4096, 65536, 1 << 20]
    assert "all 2 ranks are fit" in ranks.output()
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == [other]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["job"]


def test_what_is_wrong_fails_the_rank_that_has_it_and_no_other(tmp_path: Path) -> None:
    memory = [tmp_path / "shm" / "inception-state", tmp_path / "gone" / "inception-state"]
    memory[0].parent.mkdir()
    ranks = trainer_ranks.start(tmp_path, config(tmp_path), 2, pods=memory)
    assert ranks.wait() == [0, PreflightFailed.exit_code], ranks.output()
    found = told(ranks.output())
    assert {key for key, line in found.items() if not line["ok"]} == {(1, "memory")}
    assert "ENOENT" in found[1, "memory"]["problem"]
    assert found[1, "memory"]["remedy"] == preflight_local.REMEDIES["memory"]
    # All the same it took part in what the others need it for.
    assert found.keys() == set(itertools.product((0, 1), CHECKS))
    error = json.loads((tmp_path / "error-1.json").read_text())["message"]["message"]
    assert error.startswith("PreflightFailed: rank 1 is not fit for the job")
    assert "failed on rank 1 of 2" in ranks.output()


def test_data_that_is_not_there_and_data_that_nobody_names(tmp_path: Path) -> None:
    nowhere = {"data": {"kind": "ImageFolder", "path": "/nowhere"}}
    ranks = trainer_ranks.start(tmp_path / "a", merge(config(tmp_path), nowhere))
    assert ranks.wait() == [1], ranks.output()
    line = told(ranks.output())[0, "data"]
    assert (line["ok"], "/nowhere" in line["problem"]) == (False, True)

    ranks = trainer_ranks.start(tmp_path / "b", {"mode": "Preflight", "preflight": SMALL})
    assert ranks.wait() == [0], ranks.output()
    found = told(ranks.output())
    assert "does not say what to read" in found[0, "data"]["skipped"]
    assert "no spec.checkpoint" in found[0, "checkpoint"]["skipped"]
    assert "one rank" in found[0, "allReduce"]["skipped"]


class OneRank(Comm):
    """As if there were several ranks, of which this is one."""

    def __init__(self, rank: int = 0, world: int = 1, offsets: tuple[float, ...] = ()) -> None:
        super().__init__(0, 1, "gloo")
        self.rank, self.world_size = rank, world
        self._offsets = torch.tensor(offsets, dtype=torch.float64)

    def barrier(self) -> None:
        """Alone."""

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """The clocks of the others."""
        return (values + self._offsets - self._offsets[self.rank])[:, None]


def one_run(folder: Path, comm: Comm | None = None, **changes: Any) -> Any:
    cpu = Accelerator("cpu", torch.device("cpu"), "gloo", "FP32", "CPU")
    return SimpleNamespace(
        config=from_mapping(config(folder, **changes)),
        accelerator=cpu,
        comm=comm or OneRank(),
        heartbeat=Heartbeat(None),
        settings=SimpleNamespace(job_uid="", local_world_size=1),
        samples_seen=0,
    )


@pytest.mark.parametrize("precision", ["FP32", "TF32", "BF16", "FP16"])
def test_products_are_right_in_every_precision(precision: str, tmp_path: Path) -> None:
    run = one_run(tmp_path)
    accelerator = dataclasses.replace(run.accelerator, precision=precision)
    wrong, worst = preflight_local._wrong_products(accelerator, 3)
    assert wrong == 0
    assert 0 < worst <= 1


@pytest.mark.parametrize("error", [0.5, math.nan, math.inf])
def test_one_wrong_number_of_a_product_is_found(
    error: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = preflight_local._product

    def broken(*arguments: Any) -> torch.Tensor:
        product = right(*arguments)
        product[300, 7] += error
        return product

    monkeypatch.setattr(preflight_local, "_product", broken)
    finding = preflight_local.matmul(one_run(tmp_path))
    assert "3 of 3 products on cpu" in finding.problem
    assert finding.remedy
    # As JSON has neither.
    assert finding.figures["errorShare"] is None


def test_a_file_that_comes_back_as_another_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = CheckpointProbe(one_run(tmp_path))
    monkeypatch.setattr(preflight_local, "_write", lambda *_: (0.1, b"something else"))
    finding = probe.check()
    assert "comes back as something else" in finding.problem
    probe.tidy()
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_takes_no_file_is_named_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    run = one_run(tmp_path)
    finding = preflight.tried("checkpoint", CheckpointProbe(run).check)
    assert "ENOTDIR" in finding.problem
    assert finding.remedy == preflight_local.REMEDIES["checkpoint"]
    full = OSError(28, "No space left on device")
    assert "Make room" in preflight_local.remedy_of("checkpoint", full)


@pytest.mark.parametrize("store", object_store.STORES)
def test_a_store_is_written_read_and_left_as_it_was(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = object_store.new_place(store, tmp_path, monkeypatch)
    (Remote(url) / "attempts/1/record.json").write_bytes(b"{}")
    probe = CheckpointProbe(one_run(tmp_path, checkpoint={"path": url}))
    finding = probe.check()
    probe.tidy()
    assert not finding.problem
    assert finding.figures["megabytesPerSecond"] > 0
    assert [str(file) for file in Remote(url).files()] == [f"{url}/attempts/1/record.json"]


@pytest.mark.parametrize(
    ("model", "side"),
    [("inception_v4", 299), ("resnet50", 224), ("inception_v3", 299), ("bninception", 224)],
)
def test_the_room_that_is_asked_for_is_what_the_operator_requests(
    model: str, side: int, tmp_path: Path
) -> None:
    # Without the second head, which not every training has.
    head = {"loss": {"auxiliaryWeight": 0}} if model == "inception_v3" else {}
    data = {**TINY["data"], "numClasses": 1000, "imageSize": side}
    run = one_run(tmp_path, data=data, model={"name": model}, **head)
    expected = COPY_MIB.get(model.replace("_", ""), COPY_MIB[""])
    network = empty_network(run.config, 1000, torch.device("meta"))
    assert preflight_local.state_bytes(run.config, network) >> 20 == pytest.approx(expected, abs=2)


@pytest.mark.parametrize(("offset", "word"), [(4.0, "ahead of"), (-90.0, "behind"), (0.2, "")])
def test_a_clock_that_is_wrong_is_named(offset: float, word: str, tmp_path: Path) -> None:
    comm = OneRank(2, 3, (0.0, 0.01, offset))
    finding = preflight_together.clock(one_run(tmp_path, comm))
    assert finding.figures["offsetSeconds"] == pytest.approx(offset, abs=0.02)
    assert word in finding.problem
    assert bool(finding.problem) == bool(word)


@pytest.mark.parametrize(
    ("world", "local"), [(2, 2), (2, 1), (3, 1), (5, 5), (6, 2), (8, 4), (9, 3), (16, 2)]
)
def test_partners_meet_each_other_once_and_in_another_pod(world: int, local: int) -> None:
    met: set[frozenset[int]] = set()
    count = preflight_together.rounds(world, local)
    for number in range(count):
        partners = [
            preflight_together.partner_of(OneRank(rank, world), local, number)
            for rank in range(world)
        ]
        for rank, partner in enumerate(partners):
            if partner is None:
                continue
            assert partner != rank
            assert partners[partner] == rank
            assert local == world or partner // local != rank // local
            met.add(frozenset((rank, partner, world + number)))
    pairs = [meeting - {world + number} for number in range(count) for meeting in met]
    assert len({frozenset(pair) for pair in pairs if len(pair) == 2}) == len(met)
    # Nobody is left over in all rounds.
    assert {rank for pair in met for rank in pair if rank < world} == set(range(world))


@pytest.mark.parametrize(("largest", "count"), [(1 << 20, 3), (64 << 20, 5)])
def test_messages_grow_up_to_the_largest(largest: int, count: int) -> None:
    sizes = preflight_together.sizes(largest)
    assert (len(sizes), sizes[-1]) == (count, largest)
    assert sizes == sorted(set(sizes))


def test_a_line_is_short_and_says_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    preflight.tell(3, Finding("data", {"samples": 5}, problem="x" * 5000, remedy="look"))
    (line,) = told(capsys.readouterr().out).values()
    assert (line["rank"], line["ok"], line["samples"]) == (3, False, 5)
    assert len(line["problem"]) == preflight.LONGEST_TEXT


def test_an_error_of_a_check_is_a_finding_and_a_request_to_stop_is_none() -> None:
    def fails() -> Finding:
        raise ConfigError("data.path: no")

    def stops() -> Finding:
        raise Stopped("stopped on request")

    assert preflight.tried("data", fails).problem == "data.path: no"
    with pytest.raises(Stopped):
        preflight.tried("data", stops)
