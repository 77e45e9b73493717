"""Experiment trackers: one run for all attempts of a job, each step once; and a tracker that is
slow, away or missing, which the training does not notice.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

import example_run
import trainer_ranks
from inception_trainer.config import settings
from inception_trainer.config.settings import Settings
from inception_trainer.config.tracking import MLflowConfig, TrackingConfig, WandbConfig
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.errors import ConfigError
from inception_trainer.log import logger
from inception_trainer.reporting.progress import History
from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
)
from inception_trainer.sinks import build, tracking
from inception_trainer.sinks.mlflow import ENVIRONMENT, MLflow, mend
from inception_trainer.sinks.tracking import Journal, Outcome, Point, Stored, Tracking
from inception_trainer.sinks.wandb import (
    BLOCK_BYTES,
    FIRST,
    HEADER_BYTES,
    LAST,
    PART,
    WHOLE,
    Wandb,
    history,
    records,
)
from launchers import free_port
from mlflow_server import MlflowServer, serving
from trainer_ranks import TINY

pytestmark = pytest.mark.timeout(300)

# Imports take long on a busy machine.
PATIENCE = "200"
UID = "5b0c1c9e-0b1e-4c55-9b57-2f6f0b0c7a11"
INFO = dataclasses.replace(
    example_run.INFO,
    attempt=1,
    start_step=0,
    config={"epochs": 2, "optimizer": {"name": "SGD"}},
)
SUMMARY: dict[str, Any] = {"steps": 20}
MIDDLE = 3
"""Place of the parts of a record in a file of Weights & Biases between its first and its last."""


def logged(step: int) -> LogRecord:
    return LogRecord(step, step / 10, 1 / step, 0.5, 0.9, 0.1, 800, 0.01, 0.2, 0.5, 1.0, 80, 0)


def evaluated(step: int) -> EvaluationRecord:
    return EvaluationRecord(step, step / 10, 0.4, 0.01 * step, 1.0, 30, 15, 1.5, True)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def attempt(
    sink: Tracking, steps: range, *, end: bool | None = True, info: RunInfo = INFO
) -> Tracking:
    """Feed a sink; ``end``: whether the run is finished, None for an error of the run."""
    sink.start(info)
    for step in steps:
        sink.log(logged(step))
        if step % 5 == 0:
            sink.evaluation(evaluated(step))
    if end is not None:
        sink.end(EndRecord(SUMMARY, History(), finished=end))
    sink.close()
    return sink


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def patient(monkeypatch) -> None:
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", float(PATIENCE))
    monkeypatch.setattr(tracking, "LAST_TRY_SECONDS", float(PATIENCE))


@pytest.fixture
def warnings(caplog) -> Callable[[], list[str]]:
    logger.propagate = True
    caplog.set_level(logging.INFO, logger.name)
    # Ours alone: threads of a library may still try to reach the server of the test before.
    ours = (logger.name, "WARNING")
    return lambda: [r.getMessage() for r in caplog.records if (r.name, r.levelname) == ours]


def mlflow(uri: object, output: Path | None = None) -> Tracking:
    return Tracking(MLflow(MLflowConfig(str(uri))), UID, output)


def wandb(output: Path) -> Tracking:
    return Tracking(Wandb(WandbConfig("digits"), output), UID, output)


def stored_runs(folder: Path) -> list[Any]:
    """The runs of a file store, as MLflow's own client reads them."""
    settings.prefer(ENVIRONMENT)
    from mlflow import MlflowClient

    client = MlflowClient(folder.as_uri())
    experiment = client.get_experiment_by_name("inception")
    return list(client.search_runs([experiment.experiment_id]))


def curve_in(folder: Path, tag: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    [run] = stored_runs(folder)
    points = MlflowClient(folder.as_uri()).get_metric_history(run.info.run_id, tag)
    return [(point.step, point.value) for point in points]


def rows(output: Path) -> list[dict[str, Any]]:
    """All rows of an offline run, over the folders of its attempts in the order of their start."""
    from wandb.proto import wandb_internal_pb2

    files = sorted((output / "wandb").glob("offline-run-*/*.wandb"))
    return [row for file in files for row in history(file.read_bytes(), wandb_internal_pb2)[0]]


def attempt_on_disk(output: Path, steps: range, **options: Any) -> None:
    """Feed Weights & Biases, and wait for its file: a process of its own goes on writing it."""
    from wandb.proto import wandb_internal_pb2

    attempt(wandb(output), steps, **options)
    file = max((output / "wandb").glob("offline-run-*/*.wandb"))

    def is_whole() -> bool:
        record = wandb_internal_pb2.Record()
        for _, data in records(file.read_bytes()):
            record.ParseFromString(data)
        return record.WhichOneof("record_type") == "exit"

    until(is_whole)


@pytest.mark.usefixtures("patient")
def test_mlflow_file_store_has_what_the_run_measured(tmp_path: Path) -> None:
    attempt(mlflow(tmp_path / "runs", tmp_path / "output"), range(1, 11))
    [run] = stored_runs(tmp_path / "runs")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "default/test"
    assert run.data.params == {"epochs": "2", "optimizer.name": "SGD"}
    assert run.data.tags["inception.run"] == UID
    assert run.data.tags["inception.ranks"] == "2"
    assert curve_in(tmp_path / "runs", "train/loss") == [(n, 1 / n) for n in range(1, 11)]
    assert curve_in(tmp_path / "runs", "val/top1") == [(5, 0.05), (10, 0.1)]
    assert run.data.metrics["perf/images_per_second"] == 800


@pytest.mark.usefixtures("patient")
def test_attempts_of_a_job_are_one_run_of_mlflow(tmp_path: Path) -> None:
    output = tmp_path / "output"
    server = MlflowServer()
    with serving(server) as uri:
        attempt(mlflow(uri, output), range(1, 9), end=None)
        assert [run["status"] for run in server.runs.values()] == ["FAILED"]
        changed = {"epochs": 3, "optimizer": {"name": "SGD"}}
        again = dataclasses.replace(INFO, attempt=2, start_step=5, config=changed)
        attempt(mlflow(uri, output), range(6, 13), end=False, info=again)
        [run] = server.runs.values()
        assert run["status"] == "SCHEDULED"
        attempt(mlflow(uri), range(12, 21), info=dataclasses.replace(again, attempt=3))
    assert server.points("train/loss") == [(n, 1 / n) for n in range(1, 21)]
    assert [step for step, _ in server.points("val/top1")] == [5, 10, 15, 20]
    assert run["status"] == "FINISHED"
    # A parameter of MLflow never changes.
    assert run["params"]["epochs"] == "2"
    assert run["tags"]["changed.epochs"] == "3"
    assert run["tags"]["inception.attempt"] == "3"


@pytest.mark.usefixtures("patient")
def test_credentials_of_a_server_come_from_the_environment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "from-a-secret")
    server = MlflowServer()
    with serving(server) as uri:
        attempt(mlflow(uri), range(1, 3))
    assert server.authorizations == {"Bearer from-a-secret"}


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("journal", [True, False])
def test_a_server_that_comes_back_gets_everything(
    tmp_path: Path, monkeypatch, warnings, journal: bool
) -> None:
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.05)
    port = free_port()
    server = MlflowServer()
    sink = mlflow(f"http://127.0.0.1:{port}", tmp_path if journal else None)
    sink.start(INFO)
    for step in range(1, 11):
        sink.log(logged(step))
    until(lambda: bool(warnings()))
    with serving(server, port):
        until(lambda: len(server.runs) == 1 and len(server.points("train/loss")) == 10)
        sink.log(logged(11))
        sink.end(EndRecord(SUMMARY, History(), finished=True))
        sink.close()
    assert server.points("train/loss") == [(n, 1 / n) for n in range(1, 12)]
    [warning] = warnings()
    assert "MLflow does not work" in warning
    assert "the training goes on without it" in warning
    assert "tracking.mlflow.uri" in warning


@pytest.mark.usefixtures("patient")
def test_points_that_a_server_kept_before_it_failed_are_not_sent_again(
    monkeypatch, warnings
) -> None:
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.05)
    server = MlflowServer()
    server.mute_batches = 1
    with serving(server) as uri:
        attempt(mlflow(uri), range(1, 6), end=None)
        sink = mlflow(uri)
        sink.start(INFO)
        for step in range(1, 9):
            sink.log(logged(step))
        until(lambda: len(server.points("train/loss")) == 8)
        sink.close()
    assert server.points("train/loss") == [(n, 1 / n) for n in range(1, 9)]
    assert len(warnings()) == 1


def test_a_server_that_hangs_holds_up_neither_the_training_nor_its_end(
    tmp_path: Path, monkeypatch, warnings
) -> None:
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.1)
    server = MlflowServer()
    server.hangs.set()
    with serving(server) as uri:
        sink = mlflow(uri, tmp_path)
        sink.start(INFO)
        until(lambda: bool(server.authorizations))
        for step in range(1, 21):
            sink.log(logged(step))
        sink.end(EndRecord(SUMMARY, History(), finished=True))
        # The test's time limit would end it, if any of these waited for the server.
        sink.close()
        assert not server.requests
        # Once the server has gone, a request that still waits for it ends with another one.
        [warning] = warnings()
    assert "the run ends without it" in warning


def test_a_job_does_not_end_because_of_its_trackers(tmp_path: Path) -> None:
    """With one that is away and one whose package is broken."""
    broken = tmp_path / "packages" / "wandb"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no wandb here')\n")
    config = merge(
        TINY,
        {
            "output": {"path": str(tmp_path / "output")},
            "maxSteps": 4,
            "tracking": {
                "mlflow": {"uri": f"http://127.0.0.1:{free_port()}"},
                "wandb": {"project": "digits"},
            },
        },
    )
    environment = {"PYTHONPATH": str(broken.parent), "TRACKERS_SECONDS": PATIENCE}
    gang = trainer_ranks.start(tmp_path / "ranks", config, environment=environment)
    assert gang.wait() == [0]
    output = gang.output()
    assert output.count("Wandb is switched off: the image lacks the Python package wandb") == 1
    assert output.count("MLflow does not work") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("sink", "package"),
    [(lambda path: mlflow(path / "runs", path), "mlflow"), (wandb, "wandb")],
    ids=["mlflow", "wandb"],
)
@pytest.mark.usefixtures("patient")
def test_a_missing_package_is_told_once_with_its_name(
    tmp_path: Path, monkeypatch, warnings, sink: Callable[[Path], Tracking], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    attempt(sink(tmp_path), range(1, 6))
    [warning] = warnings()
    assert f"the image lacks the Python package {package}" in warning
    assert "docs/trainer/results.md" in warning


@pytest.mark.usefixtures("patient")
def test_wandb_keeps_what_the_run_measured(tmp_path: Path) -> None:
    # So many that records are cut by the ends of the file's blocks.
    attempt_on_disk(tmp_path, range(1, 301))
    found = rows(tmp_path)
    assert [(row["_step"], row["train/loss"]) for row in found] == [
        (n, 1 / n) for n in range(1, 301)
    ]
    assert [row["_step"] for row in found if "val/top1" in row] == list(range(5, 301, 5))
    content = b"".join(path.read_bytes() for path in tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(content) > 2 * 32_768


@pytest.mark.usefixtures("patient")
def test_what_a_killed_attempt_had_not_written_comes_with_the_next_one(tmp_path: Path) -> None:
    attempt_on_disk(tmp_path, range(1, 301), end=None)
    [folder] = tmp_path.glob(f"wandb/offline-run-*-{UID}")
    folder = folder.rename(folder.with_name(f"offline-run-20200101_000000-{UID}"))
    file = folder / f"run-{UID}.wandb"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    left = len(rows(tmp_path))
    assert 0 < left < 300
    attempt_on_disk(tmp_path, range(281, 311), info=dataclasses.replace(INFO, start_step=280))
    found = rows(tmp_path)
    assert [row["_step"] for row in found if "train/loss" in row] == list(range(1, 311))
    assert [row["_step"] for row in found if "val/top1" in row] == list(range(5, 311, 5))
    # One ID, and a folder for each attempt.
    assert len(list(tmp_path.glob(f"wandb/offline-run-*-{UID}"))) == 2


def cut(content: bytes, end: int) -> bytes:
    return content[:end]


def zeroed(content: bytes, end: int) -> bytes:
    """As some file systems leave a file whose node died: its length is there, its end is not."""
    return content[:end].ljust(len(content), b"\0")


def garbled(content: bytes, end: int) -> bytes:
    """Blocks of something else where the end was."""
    return content[:end].ljust(len(content), b"\xa5")


DAMAGE = pytest.mark.parametrize("damage", [cut, zeroed, garbled])


@pytest.fixture(scope="module")
def wandb_content(tmp_path_factory) -> bytes:
    """Of a run whose last records, one of them in two parts, lie about the end of a block."""
    output = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "CLOSE_SECONDS", float(PATIENCE))
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        attempt_on_disk(output, range(1, 121))
    [file] = output.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    assert len(content) > 2 * 32_768
    return content


@DAMAGE
def test_a_torn_record_of_wandb_ends_its_file_wherever_it_is(
    wandb_content: bytes, damage: Callable[[bytes, int], bytes]
) -> None:
    from wandb.proto import wandb_internal_pb2

    written = list(records(wandb_content))
    assert written[-1][0] == len(wandb_content)
    # About the border of two blocks, in the last records and in the head.
    last = len(wandb_content)
    places = [*range(65_536 - 300, 65_536 + 200), *range(last - 400, last), *range(200)]
    for end in places:
        torn = damage(wandb_content, end)
        # Some bytes are zeros already.
        pairs = zip(torn[end:], wandb_content[end:], strict=False)
        intact = end + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        assert list(records(torn)) == [record for record in written if record[0] <= intact]
    all_rows, length = history(wandb_content, wandb_internal_pb2)
    assert length == last
    for end in (0, 5, 200, 32_769, 65_530, 65_540, last - 300, last - 3):
        torn = damage(wandb_content, end)
        found, whole = history(torn, wandb_internal_pb2)
        assert found == all_rows[: len(found)]
        kept = [place for place, _ in written if place <= end]
        assert whole == max(kept, default=min(len(torn), 7))


def log_of(written: Iterable[bytes]) -> bytes:
    """A file of records as LevelDB's writer cuts them."""
    content = bytearray(HEADER_BYTES)
    for data in written:
        rest, begins = data, True
        while begins or rest:
            left = BLOCK_BYTES - len(content) % BLOCK_BYTES
            if left < PART.size:
                content += bytes(left)
                left = BLOCK_BYTES
            part, rest = rest[: left - PART.size], rest[left - PART.size :]
            place = (WHOLE if begins else LAST) if not rest else (FIRST if begins else MIDDLE)
            checksum = zlib.crc32(part, zlib.crc32(bytes((place,))))
            content += PART.pack(checksum, len(part), place) + part
            begins = False
    return bytes(content)


@pytest.mark.parametrize("left", range(2 * PART.size + 1))
@pytest.mark.parametrize("length", [1, 100, 3 * BLOCK_BYTES])
def test_a_record_of_wandb_is_read_wherever_a_block_ends(left: int, length: int) -> None:
    # Where there is room for the head of a part alone, the record begins with nothing.
    first = b"a" * (BLOCK_BYTES - HEADER_BYTES - PART.size - left)
    written = [first, b"b" * length, b"c"]
    content = log_of(written)
    assert [data for _, data in records(content)] == written
    assert [place for place, _ in records(content)][-1] == len(content)


@DAMAGE
@pytest.mark.usefixtures("patient")
def test_an_attempt_goes_on_after_one_whose_node_died(
    tmp_path: Path,
    caplog,
    warnings,
    wandb_content: bytes,
    damage: Callable[[bytes, int], bytes],
) -> None:
    folder = tmp_path / "wandb" / f"offline-run-20200101_000000-{UID}"
    folder.mkdir(parents=True)
    torn = damage(wandb_content, len(wandb_content) // 2)
    (folder / f"run-{UID}.wandb").write_bytes(torn)
    left = len(rows(tmp_path))
    assert 0 < left < 120
    Journal(tmp_path / "tracking" / f"wandb-{UID}.jsonl")
    sink = wandb(tmp_path)
    attempt(sink, range(left, 131), info=dataclasses.replace(INFO, start_step=left))
    until(lambda: len(rows(tmp_path)) >= 130)
    assert [row["_step"] for row in rows(tmp_path) if "train/loss" in row] == list(range(1, 131))
    assert warnings() == []
    [line] = [each for each in caplog.messages if "no whole record" in each]
    assert f"of {len(torn)} bytes" in line


@DAMAGE
def test_a_journal_is_read_up_to_a_torn_line_wherever_that_is(
    tmp_path: Path, damage: Callable[[bytes, int], bytes]
) -> None:
    path = tmp_path / "journal.jsonl"
    points = [Point(step, 1.5, {"train/loss": 0.5, "val/top1": step / 7}) for step in range(1, 6)]
    Journal(path).add(points)
    content = path.read_bytes()
    for end in range(len(content)):
        torn = damage(content, end)
        path.write_bytes(torn)
        # A line that lacks no more than its end of line is whole.
        whole = (torn[:end] + b"\n").count(b"}]\n") if damage is cut else torn.count(b"}]\n")
        journal = Journal(path)
        assert list(journal.points()) == points[:whole]
        journal.add(points)
        assert list(Journal(path).points()) == points


@DAMAGE
@pytest.mark.usefixtures("patient")
def test_a_file_store_of_mlflow_goes_on_after_a_node_that_died(
    tmp_path: Path, caplog, warnings, damage: Callable[[bytes, int], bytes]
) -> None:
    store = tmp_path / "runs"
    attempt(mlflow(store, tmp_path / "output"), range(1, 11), end=None)
    [curve] = store.glob("*/*/metrics/train/loss")
    content = curve.read_bytes()
    for end in range(len(content) - content.count(b"\n") * 10, len(content)):
        curve.write_bytes(damage(content, end))
        mend(store, UID)
        assert curve.read_bytes() == content[: content.rfind(b"\n", 0, end) + 1]
    for end in (0, 10):
        curve.write_bytes(damage(content, end))
        mend(store, "of-another-run")
        assert curve.read_bytes() == damage(content, end)
        mend(store, UID)
        assert not curve.exists()
    curve.write_bytes(damage(content, len(content) - 15))
    caplog.clear()
    again = dataclasses.replace(INFO, attempt=2, start_step=8)
    attempt(mlflow(store, tmp_path / "output"), range(9, 13), info=again)
    assert curve_in(store, "train/loss") == [(n, 1 / n) for n in range(1, 13)]
    assert warnings() == []
    [line] = [each for each in caplog.messages if "no whole lines" in each]
    assert str(curve) in line


@DAMAGE
def test_the_name_of_a_run_is_found_where_a_node_left_a_part_of_its_file(
    tmp_path: Path, damage: Callable[[bytes, int], bytes]
) -> None:
    path = tmp_path / "wandb-run.txt"
    run = tracking._remembered(tmp_path, "wandb", anew=True)
    content = path.read_bytes()
    Journal(tmp_path / f"wandb-{run}.jsonl").add([Point(1, 1.5, {"train/loss": 0.5})])
    older = tmp_path / f"wandb-{'0' * 32}.jsonl"
    older.touch()
    os.utime(older, (1, 1))
    for end in range(len(content)):
        path.write_bytes(damage(content, end))
        assert tracking._remembered(tmp_path, "wandb", anew=False) == run
        assert path.read_text(encoding="ascii").strip() == run
    path.write_bytes(damage(content, 5))
    assert tracking._remembered(tmp_path, "wandb", anew=True) != run
    path.write_bytes(damage(content, 5))
    for journal in tmp_path.glob("*.jsonl"):
        journal.unlink()
    anew = tracking._remembered(tmp_path, "wandb", anew=False)
    assert len(anew) == 32
    assert tracking._remembered(tmp_path, "wandb", anew=False) == anew


class Slow:
    """A tracker that takes nothing until it may."""

    name, remedy = "Slow", ""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked = threading.Event()
        self.steps: list[int] = []
        self.outcome: Outcome | None = None

    def open(self, info: RunInfo, run: str) -> Stored:
        self.asked.set()
        assert self.may.wait(100)
        return {}

    def write(self, points: list[Point]) -> None:
        self.steps += [point.step for point in points]

    def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("end", "outcome"),
    [(True, Outcome.FINISHED), (False, Outcome.STOPPED), (None, Outcome.FAILED)],
)
def test_what_waits_in_memory_is_bounded_and_the_newest_stays(
    monkeypatch, caplog, warnings, end: bool | None, outcome: Outcome
) -> None:
    monkeypatch.setattr(tracking, "MOST_POINTS", 5)
    slow = Slow()
    sink = Tracking(slow)
    sink.start(INFO)
    assert slow.asked.wait(100)
    for step in range(1, 21):
        sink.log(logged(step))
    if end is not None:
        sink.end(EndRecord(SUMMARY, History(), finished=end))
    slow.may.set()
    sink.close()
    assert slow.steps == [16, 17, 18, 19, 20]
    assert slow.outcome is outcome
    assert warnings() == ["Slow was away or too slow: 15 points were lost"]


def test_a_journal_goes_on_after_a_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    points = [Point(step, 1.5, {"train/loss": 0.5, "train/lr": float(step)}) for step in (1, 2, 3)]
    Journal(path).add(points[:2])
    path.write_bytes(path.read_bytes()[:-10])
    journal = Journal(path)
    assert list(journal.points()) == points[:1]
    journal.add(points)
    journal.add(points)
    assert list(journal.points()) == points
    assert list(Journal(path).points()) == points


@pytest.mark.usefixtures("patient")
def test_outside_of_a_cluster_a_training_that_begins_anew_is_another_run(tmp_path: Path) -> None:
    def run(steps: range, start: int) -> None:
        sink = Tracking(MLflow(MLflowConfig(str(tmp_path / "runs"))), "", tmp_path / "output")
        attempt(sink, steps, info=dataclasses.replace(INFO, start_step=start))

    run(range(1, 4), 0)
    run(range(3, 6), 2)
    [only] = stored_runs(tmp_path / "runs")
    run(range(1, 3), 0)
    assert len(stored_runs(tmp_path / "runs")) == 2
    assert only.data.metrics["train/loss"] == 1 / 5


@contextmanager
def stopped_by(gang: trainer_ranks.Gang, number: signal.Signals) -> Iterator[None]:
    yield
    gang.signal(number)
    gang.wait()


def test_a_killed_job_goes_on_in_the_same_runs_with_every_step_once(tmp_path: Path) -> None:
    output = tmp_path / "output"
    config = merge(
        TINY,
        {
            "epochs": 4,
            "checkpoint": {
                "path": str(tmp_path / "job"),
                "everySteps": 5,
                "everySeconds": 0,
                "memory": "Never",
            },
            "output": {"path": str(output)},
            "tracking": {
                "mlflow": {"uri": str(tmp_path / "runs")},
                "wandb": {"project": "digits"},
            },
        },
    )
    environment = {"INCEPTION_JOB_UID": UID, "TRACKERS_SECONDS": PATIENCE}
    folder = tmp_path / "ranks"
    gang = trainer_ranks.start(folder, config, pause=0.3, environment=environment)
    journal = output / "tracking" / f"wandb-{UID}.jsonl"

    def reached() -> bool:
        return journal.exists() and journal.read_text().count("\n") > 13

    with stopped_by(gang, signal.SIGKILL):
        gang.until(reached)
    repeated = [json.loads(line)[0] for line in journal.read_text().splitlines()]
    gang = trainer_ranks.start(folder, config, attempt=2, environment=environment)
    assert gang.wait() == [0], gang.output()
    assert max(repeated) > 10, "nothing was beyond the checkpoint"
    steps = list(range(1, 25))
    assert [step for step, _ in curve_in(tmp_path / "runs", "train/loss")] == steps
    assert [step for step, _ in curve_in(tmp_path / "runs", "val/top1")] == [6, 12, 18, 24]
    counts = Counter(row["_step"] for row in rows(output) if "train/loss" in row)
    assert counts == dict.fromkeys(steps, 1)
    [run] = stored_runs(tmp_path / "runs")
    assert run.info.status == "FINISHED"
    assert run.data.tags["inception.attempt"] == "2"
    assert list(output.glob(f"wandb/offline-run-*-{UID}"))


def test_trackers_are_fed_by_the_first_rank_in_training_alone(tmp_path: Path) -> None:
    config = TrackingConfig(MLflowConfig("http://mlflow"), WandbConfig("digits"))

    def trackers(rank: int, mode: str, output: Path | None = tmp_path) -> list[str]:
        sinks = build(Settings(rank=rank), output, mode, config)
        return [each._tracker.name for each in sinks if isinstance(each, Tracking)]

    assert trackers(0, "Train") == ["MLflow", "Wandb"]
    assert trackers(0, "Train", None) == ["MLflow"]
    assert trackers(1, "Train") == []
    assert trackers(0, "Evaluate") == []


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("https://me:secret@mlflow/", "holds credentials; leave them out and set MLFLOW_TRACKING"),
        ("sqlite:///runs.db", "neither an http or https URL nor a directory"),
    ],
)
def test_addresses_that_are_refused(uri: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"tracking\.mlflow\.uri: .*{words}") as refused:
        from_mapping({"data": {"kind": "Digits"}, "tracking": {"mlflow": {"uri": uri}}})
    assert "secret" not in str(refused.value)
