"""What others read: Prometheus series, the launcher's progress file, summary, raport, TensorBoard,
curves.
"""

import dataclasses
import json
import re
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from example_run import INFO
from inception_trainer.checkpoint.base import MemoryCopyRecord, SaveRecord
from inception_trainer.config.settings import Settings, from_environment
from inception_trainer.device import Figures, StepTimes
from inception_trainer.launcher.rank_times import RankTimes
from inception_trainer.log import logger
from inception_trainer.reporting.outputs import append_lines
from inception_trainer.reporting.progress import MOST_ROWS, History, Progress
from inception_trainer.reporting.records import (
    Bus,
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
    Sink,
    StepRecord,
)
from inception_trainer.sinks import build
from inception_trainer.sinks.console import Console, describe
from inception_trainer.sinks.curves import Curves, smoothed
from inception_trainer.sinks.files import ProgressFile
from inception_trainer.sinks.mllog import MLLog
from inception_trainer.sinks.model_zoo_log import AccuracyLog, BenchmarkLog, benchmark_figures
from inception_trainer.sinks.nvidia_raport import METRICS, NvidiaRaport, percentile
from inception_trainer.sinks.prometheus import Prometheus
from inception_trainer.sinks.tecorigin_log import TecoriginLog
from inception_trainer.sinks.tensorboard import TensorBoard
from launchers import free_port
from prometheus import lint

DEVICE = Figures(3e9, 4e9, 2e9, 0.5, 61.0, 250.0, 1.0)
LOG = LogRecord(
    10,
    1.0,
    0.5,
    0.8,
    0.99,
    0.1,
    800.0,
    0.01,
    0.25,
    0.5,
    12.0,
    80,
    0,
    devices=(DEVICE, Figures(3e9)),
)
EVALUATION = EvaluationRecord(10, 1.0, 0.4, 0.9, 1.0, 30, 15, 1.5, True)
SUMMARY = {
    "steps": 20,
    "epochs": 2.0,
    "samplesSeen": 160,
    "accuracyTop1": 0.95,
    "accuracyTop5": 1.0,
    "loss": 0.3,
    "evaluatedStep": 20,
    "imagesPerSecond": 800.0,
    "exitReason": "Completed",
}
HISTORY = History(
    [[10, 0.5, 0.8, 0.1, 800.0], [20, 0.3, 0.9, 0.0, 800.0]], [[10, 0.4, 0.9, 1.0]], [5]
)
END = EndRecord(SUMMARY, HISTORY, finished=True)


def feed(*sinks: Sink, end: EndRecord = END, info: RunInfo = INFO) -> None:
    bus = Bus(sinks)
    bus.start(info)
    bus.step(StepRecord(10, 0.022, 4, 80))
    bus.step_times(StepTimes(10, 0.002, 0.02))
    bus.log(LOG)
    bus.evaluation(EVALUATION)
    bus.checkpoint(SaveRecord(10, 1000, 0.2, 0.0))
    bus.end(end)
    bus.close()
    assert len(bus._sinks) == len(sinks), "a sink failed"


CONTRACT = (
    "trainer_progress_ratio",
    "trainer_epoch",
    "trainer_step",
    "trainer_loss",
    "trainer_accuracy_ratio",
    "trainer_learning_rate",
    "trainer_samples_total",
    "trainer_samples_per_second",
    "trainer_estimated_remaining_seconds",
    "trainer_steps_total",
    "trainer_step_duration_seconds",
    "trainer_attempt",
    "trainer_last_step_timestamp_seconds",
    "trainer_checkpoint_last_success_timestamp_seconds",
    "trainer_checkpoint_duration_seconds",
    "trainer_checkpoint_size_bytes",
    "trainer_checkpoint_stall_seconds_total",
    "trainer_samples_seen",
    "trainer_build_info",
)


RANKS = (RankTimes(0, 8, 5.0, 1.0, 3.5), RankTimes(1, 8, 5.0, 4.0, 0.5))


def families(text: str) -> dict:
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture(scope="module")
def exposition(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("prom") / "metrics.prom"
    feed(Prometheus(0, path, lambda: RANKS))
    return path.read_text()


def test_series_of_the_contract(exposition) -> None:
    samples = {sample.name for family in families(exposition).values() for sample in family.samples}
    histograms = {name for name in CONTRACT if f"{name}_bucket" in samples}
    assert histograms == {"trainer_step_duration_seconds", "trainer_checkpoint_duration_seconds"}
    assert set(CONTRACT) <= samples | histograms


def test_exposition_follows_the_conventions(exposition) -> None:
    for family in families(exposition).values():
        assert re.fullmatch(r"trainer_[a-z_]+", family.name)
        assert family.documentation
        assert not family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        for sample in family.samples:
            assert set(sample.labels) <= {
                "split",
                "k",
                "phase",
                "part",
                "le",
                "rank",
                *BUILD_LABELS,
            }
            assert sample.name.endswith("_total") == (family.type == "counter")


def test_every_rank_of_the_pod_tells_where_its_steps_went(exposition) -> None:
    values = {
        (sample.name, sample.labels["rank"]): sample.value
        for family in families(exposition).values()
        for sample in family.samples
        if family.name.startswith("trainer_rank_")
    }
    assert values == {
        ("trainer_rank_steps_total", "0"): 8.0,
        ("trainer_rank_steps_total", "1"): 8.0,
        ("trainer_rank_step_seconds_total", "0"): 5.0,
        ("trainer_rank_step_seconds_total", "1"): 5.0,
        ("trainer_rank_own_seconds_total", "0"): 1.0,
        ("trainer_rank_own_seconds_total", "1"): 4.0,
        ("trainer_rank_wait_seconds_total", "0"): 3.5,
        ("trainer_rank_wait_seconds_total", "1"): 0.5,
    }


def test_a_page_has_the_ranks_of_the_pod_by_their_global_numbers(tmp_path: Path) -> None:
    for local in range(2):
        (tmp_path / f"heartbeat-{local}").write_text("9 40 step 8 5.0 1.0 3.5")
    settings = Settings(
        heartbeat_file=tmp_path / "heartbeat-0", metrics_port=1, rank=4, world_size=8
    )
    (sink,) = (sink for sink in build(settings, None) if isinstance(sink, Prometheus))
    assert sink.registry.get_sample_value("trainer_rank_steps_total", {"rank": "5"}) == 8
    assert sink.registry.get_sample_value("trainer_rank_steps_total", {"rank": "0"}) is None


def test_what_is_not_known_of_gradients_is_absent(tmp_path: Path) -> None:
    sink = Prometheus(0)
    sink.start(INFO)
    sink.log(LOG)
    names = {family.name for family in sink.registry.collect()}
    assert not names & {"trainer_gradient_norm", "trainer_loss_scale"}
    sink.log(dataclasses.replace(LOG, gradient_norm=2.5, loss_scale=1024.0))
    assert sink.registry.get_sample_value("trainer_gradient_norm") == 2.5
    assert sink.registry.get_sample_value("trainer_loss_scale") == 1024.0


BUILD_LABELS = {"version", "model", "precision", "device", "profile", "backend", "world_size"}


@pytest.mark.timeout(900)  # promtool is built if it is not there
def test_exposition_with_figures_of_devices_pleases_promtool(exposition) -> None:
    assert "trainer_device_healthy" in exposition
    assert lint(exposition) == ""


def test_figures_that_a_device_does_not_tell_are_absent(exposition) -> None:
    devices = {
        name: family
        for name, family in families(exposition).items()
        if name.startswith("trainer_device_")
    }
    for name, family in devices.items():
        numbers = {sample.labels["device"] for sample in family.samples}
        assert numbers == ({"0", "1"} if name == "trainer_device_memory_used_bytes" else {"0"}), (
            name
        )
    assert len(devices) == len(Figures.__dataclass_fields__)
    bare = Prometheus(0).registry
    assert bare.get_sample_value("trainer_device_healthy", {"device": "0"}) is None


def test_known_label_sets_are_there_from_the_start() -> None:
    registry = Prometheus(0).registry
    for labels in ({"split": s, "k": k} for s in ("val", "train") for k in ("1", "5")):
        assert registry.get_sample_value("trainer_accuracy_ratio", labels) == 0
    for phase in ("train", "val"):
        assert registry.get_sample_value("trainer_samples_total", {"phase": phase}) == 0


def test_values() -> None:
    sink = Prometheus(0)
    feed(sink)
    value = sink.registry.get_sample_value
    assert value("trainer_samples_total", {"phase": "train"}) == 4
    assert value("trainer_samples_total", {"phase": "val"}) == 15
    assert value("trainer_samples_seen") == 160
    assert value("trainer_attempt") == 2
    assert value("trainer_progress_ratio") == 1
    assert value("trainer_accuracy_ratio", {"split": "val", "k": "1"}) == 0.95
    assert value("trainer_accuracy_ratio", {"split": "train", "k": "1"}) == 0.8
    assert value("trainer_checkpoint_size_bytes") == 1000
    assert value("trainer_build_info", dict.fromkeys(BUILD_LABELS) | build_labels(sink)) == 1


def build_labels(sink: Prometheus) -> dict[str, str]:
    [family] = [family for family in sink.registry.collect() if family.name == "trainer_build"]
    assert set(family.samples[0].labels) == BUILD_LABELS
    return family.samples[0].labels


def scrape(port: int, path: str = "/metrics", host: str = "127.0.0.1") -> str:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as response:
                return response.read().decode()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_port_that_is_busy_is_taken_later() -> None:
    port = free_port()
    with socket.socket() as squatter:
        squatter.bind(("0.0.0.0", port))
        squatter.listen()
        sink = Prometheus(port)
        sink.start(INFO)
    assert "trainer_attempt 2.0" in scrape(port)
    sink.close()


def test_the_page_is_served_on_both_families() -> None:
    port = free_port()
    sink = Prometheus(port)
    sink.start(INFO)
    for host in ("127.0.0.1", "[::1]"):
        assert "trainer_attempt 2.0" in scrape(port, host=host)
    sink.close()


def test_progress_file(tmp_path) -> None:
    sink = ProgressFile(tmp_path / "progress.json")
    sink.start(INFO)
    sink.step(StepRecord(6, 0.2, 4, 48))
    first = json.loads((tmp_path / "progress.json").read_text())
    assert first["step"] == 6
    assert first["metrics"]["progress"] == 0.3
    sink.step(StepRecord(7, 0.2, 4, 56))
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == 6, (
        "at most once a second"
    )
    sink.log(LOG)
    sink.evaluation(EVALUATION)
    sink.end(END)
    last = json.loads((tmp_path / "progress.json").read_text())
    assert last["step"] == 20
    metrics = last["metrics"]
    assert (metrics["accuracyTop1"], metrics["loss"], metrics["samplesPerSecond"]) == (
        0.95,
        0.5,
        800.0,
    )
    assert (metrics["progress"], metrics["samplesSeen"]) == (1.0, 160)
    assert last["time"].endswith("+00:00")


def test_accuracy_of_an_earlier_attempt_is_shown_from_the_start(tmp_path) -> None:
    info = dataclasses.replace(INFO, evaluated=(0.7, 0.9))
    served, reported = Prometheus(0), ProgressFile(tmp_path / "progress.json")
    bus = Bus([served, reported])
    bus.start(info)
    bus.step(StepRecord(6, 0.2, 4, 48))
    assert (
        served.registry.get_sample_value("trainer_accuracy_ratio", {"split": "val", "k": "5"})
        == 0.9
    )
    assert json.loads((tmp_path / "progress.json").read_text())["metrics"]["accuracyTop1"] == 0.7


def raport(folder: Path) -> list[dict]:
    lines = (folder / "raport.json").read_text().splitlines()
    assert all(line.startswith("DLLL ") for line in lines)
    return [json.loads(line[5:]) for line in lines]


def test_an_idle_device_is_named_where_it_can_be_known() -> None:
    known = dataclasses.replace(LOG, device_idle_ratio=0.25)
    assert " idle 25 % " in describe(known, INFO)
    assert "idle" not in describe(LOG, INFO)
    sink = Prometheus(0)
    sink.start(INFO)
    sink.log(LOG)
    assert sink.registry.get_sample_value("trainer_device_idle_ratio") is None
    sink.log(known)
    assert sink.registry.get_sample_value("trainer_device_idle_ratio") == 0.25


def test_copies_in_memory_and_repeated_steps_are_told() -> None:
    sink = Prometheus(0)
    bus = Bus([sink])
    bus.start(dataclasses.replace(INFO, repeated_steps=3))
    bus.memory_copy(MemoryCopyRecord(120, 91_000_000, 0.25))
    value = sink.registry.get_sample_value
    assert value("trainer_repeated_steps_total") == 3
    figures = ("step", "bytes", "seconds")
    found = [value(f"trainer_memory_snapshot_{name}") for name in figures]
    assert found == [120, 91_000_000, 0.25]


def test_raport_lines(tmp_path) -> None:
    feed(NvidiaRaport(tmp_path))
    records = raport(tmp_path)
    assert all(
        {"timestamp", "datetime", "elapsedtime", "type"} <= set(record) for record in records
    )
    units = {
        record["metric"]: record["metadata"]["unit"]
        for record in records
        if record["type"] == "METADATA"
    }
    assert units == {name: unit for name, (unit, _format) in METRICS.items()}
    logs = {str(record["step"]): record["data"] for record in records if record["type"] == "LOG"}
    assert list(logs) == ["PARAMETER", "[0, 9]", "[0]", "[]"]
    assert logs["[0]"]["val.top1"] == 90.0
    assert logs["[0]"]["train.loss"] == 0.5
    assert logs["[]"] == {
        "val.top1": 95.0,
        "val.top5": 100.0,
        "val.loss": 0.3,
        "train.total_ips": 800.0,
        "train.loss": 0.3,
    }
    assert set().union(*logs.values()) - {"attempt", "world_size", "epochs"} <= set(METRICS)


def test_raport_summarises_an_epoch(tmp_path) -> None:
    """Means, but the last learning rate and loss scale; latencies of the batches of this rank."""
    sink = NvidiaRaport(tmp_path)
    sink.start(INFO)
    for step, loss, rate in ((5, 1.0, 0.2), (10, 3.0, 0.1), (15, 5.0, 0.05)):
        sink.log(dataclasses.replace(LOG, step=step, loss=loss, learning_rate=rate, loss_scale=8.0))
    batches = tuple(0.01 * number for number in range(1, 101))
    timed = dataclasses.replace(
        EVALUATION, step=20, seconds=2.0, data_seconds=0.5, batch_seconds=batches
    )
    sink.evaluation(timed)
    sink.close()
    first, second = (
        record["data"] for record in raport(tmp_path) if record.get("step") in ([0], [1])
    )
    assert (first["train.loss"], first["train.lr"], first["train.grad_scale"]) == (2.0, 0.1, 8.0)
    assert "val.top1" not in first
    assert (second["train.loss"], second["train.lr"]) == (5.0, 0.05)
    assert (second["val.compute_ips"], second["val.total_ips"]) == (20.0, 15.0)
    shares = [second[f"val.compute_latency_at{share}"] for share in (95, 99, 100)]
    assert shares == pytest.approx([0.95, 0.99, 1.0])
    assert second["val.compute_latency"] == pytest.approx(0.505)


def test_share_of_few() -> None:
    assert [percentile([1.0], share) for share in (95, 100)] == [1.0, 1.0]
    assert percentile([1.0, 2.0], 50) == 1.0


def test_tcap_lines(tmp_path) -> None:
    """Units, goals and stages, then texts in a text; attempts follow one another."""
    for _attempt in range(2):
        feed(TecoriginLog(tmp_path), info=dataclasses.replace(INFO, profile="tecorigin"))
    written = (tmp_path / "tcap_dllogger.json").read_text().splitlines()
    assert all(line.startswith("TCAPPDLL ") for line in written)
    records = [json.loads(line.removeprefix("TCAPPDLL ")) for line in written]
    assert all(
        {"timestamp", "datetime", "elapsedtime", "type"} <= set(record) for record in records
    )
    assert {
        record["metric"]: record["metadata"] for record in records if record["type"] == "METADATA"
    } == {
        "train.loss": {"unit": "", "GOAL": "MINIMIZE", "STAGE": "TRAIN"},
        "train.ips": {"unit": "imgs/s", "GOAL": "MAXIMIZE", "STAGE": "TRAIN"},
        "train.total_time": {"unit": "s", "GOAL": "MINIMIZE", "STAGE": "TRAIN"},
        "val.loss": {"unit": "", "GOAL": "MINIMIZE", "STAGE": "VALID"},
        "val.top1": {"unit": "%", "GOAL": "MAXIMIZE", "STAGE": "VALID"},
    }
    logs = [(record["step"], record["data"]) for record in records if record["type"] == "LOG"]
    assert logs == 2 * [
        (
            [0, 9],
            "{'rank': '0', 'train.loss': '0.5', 'train.ips': '800.0', 'train.total_time': '0.01'}",
        ),
        ([0], "{'rank': '0', 'val.loss': '0.4', 'val.top1': '90.0'}"),
    ]


def test_tcap_is_for_its_vendors_profile_and_training_only(tmp_path) -> None:
    feed(TecoriginLog(tmp_path), info=dataclasses.replace(INFO, profile="sdaa"))
    assert not list(tmp_path.iterdir())
    for mode in ("Train", "Evaluate"):
        sinks = [
            sink for sink in build(Settings(), tmp_path, mode) if isinstance(sink, TecoriginLog)
        ]
        assert len(sinks) == (mode == "Train")


CONFIG = {
    "seed": 3,
    "batch": {"global": 8, "perDevice": 2},
    "evaluation": {"everyEpochs": 2},
    "optimizer": {"name": "SGD", "learningRate": 0.1, "weightDecay": 0.0001},
    "schedule": {"warmupEpochs": 1.0},
}
MLINFO = dataclasses.replace(
    INFO,
    model="resnet50",
    config=CONFIG,
    start_step=0,
    steps_per_epoch=2,
    train_samples=17,
    evaluation_samples=5,
)


def mllog(folder: Path) -> list[dict]:
    lines = (folder / "mllog.txt").read_text().splitlines()
    assert all(line.startswith(":::MLLOG ") for line in lines)
    return [json.loads(line[9:]) for line in lines]


def attempt(
    folder: Path,
    steps: range,
    *,
    info: RunInfo = MLINFO,
    evaluated: int = 0,
    finished: bool = False,
) -> None:
    bus = Bus([MLLog(folder)])
    bus.start(dataclasses.replace(info, start_step=steps.start))
    for step in steps:
        bus.step(StepRecord(step + 1, 0.022, 4, 80))
    if evaluated:
        bus.evaluation(
            dataclasses.replace(EVALUATION, step=evaluated, epoch=evaluated / info.steps_per_epoch)
        )
    bus.end(dataclasses.replace(END, finished=finished))
    bus.close()
    assert bus._sinks, "the sink failed"


def test_mllog_over_two_attempts(tmp_path) -> None:
    """One run, one end, an initialisation per attempt; times never run backwards."""
    attempt(tmp_path, range(3))
    attempt(tmp_path, range(3, 4), evaluated=4, finished=True)
    records = mllog(tmp_path)
    assert all(
        set(r) == {"namespace", "time_ms", "event_type", "key", "value", "metadata"}
        for r in records
    )
    assert all({"file", "lineno"} <= set(record["metadata"]) for record in records)
    intervals = [record["key"] for record in records if record["event_type"] != "POINT_IN_TIME"]
    assert intervals == [
        *(
            "init_start",
            "init_stop",
            "run_start",
            "block_start",
            "epoch_start",
            "epoch_stop",
            "epoch_start",
        ),
        *(
            "init_start",
            "init_stop",
            "block_start",
            "epoch_stop",
            "block_stop",
            "eval_start",
            "eval_stop",
            "run_stop",
        ),
    ]
    blocks = [record["metadata"] for record in records if record["key"] == "block_start"]
    assert [(block["first_epoch_num"], block["epoch_count"]) for block in blocks] == [
        (1, 2),
        (2.5, 2),
    ]
    found = {record["key"]: record for record in records}
    assert found["eval_accuracy"]["value"] == 0.9
    assert found["eval_accuracy"]["metadata"]["epoch_num"] == 2.0
    assert found["run_stop"]["metadata"]["status"] == "success"
    values = {
        key: found[key]["value"]
        for key in ("submission_benchmark", "global_batch_size", "model_bn_span", "seed")
    }
    assert values == {
        "submission_benchmark": "resnet",
        "global_batch_size": 8,
        "model_bn_span": 2,
        "seed": 3,
    }
    assert found["gradient_accumulation_steps"]["value"] == 2
    assert (found["train_samples"]["value"], found["eval_samples"]["value"]) == (17, 5)
    assert (found["opt_name"]["value"], found["opt_learning_rate_warmup_epochs"]["value"]) == (
        "sgd",
        1.0,
    )


@pytest.mark.parametrize("damage", ["cut", "zeroed"])
def test_lines_go_on_after_one_that_a_dead_node_has_left_torn(tmp_path, damage) -> None:
    path = tmp_path / "lines.jsonl"
    with append_lines(path) as file:
        file.write('{"a": 1}\n{"b": 2}\n')
    content = path.read_bytes()
    for end in range(len(content) + 1):
        torn = content[:end]
        path.write_bytes(torn if damage == "cut" else torn.ljust(len(content), b"\0"))
        with append_lines(path) as file:
            file.write('{"c": 3}\n')
        found = path.read_text().splitlines()
        assert found[-1] == '{"c": 3}'
        assert found[: torn.count(b"\n")] == ['{"a": 1}', '{"b": 2}'][: torn.count(b"\n")]
        assert len(found) <= 3


def test_raport_and_mllog_go_on_after_a_torn_line(tmp_path) -> None:
    attempt(tmp_path, range(3))
    feed(NvidiaRaport(tmp_path))
    logs = (tmp_path / "mllog.txt", tmp_path / "raport.json")
    before = [path.read_text().count("\n") for path in logs]
    for path in logs:
        path.write_bytes(path.read_bytes()[:-9])
    attempt(tmp_path, range(3, 4), evaluated=4, finished=True)
    feed(NvidiaRaport(tmp_path))
    for path, count, word in zip(logs, before, (":::MLLOG ", "DLLL "), strict=True):
        found = path.read_text().splitlines()
        torn = found.pop(count - 1)
        assert torn.startswith(word)
        assert all(json.loads(line.removeprefix(word)) for line in found)
        assert len(found) > count


def test_mllog_says_what_runs_where_a_dead_node_left_an_empty_file(tmp_path) -> None:
    (tmp_path / "mllog.txt").touch()
    attempt(tmp_path, range(3))
    assert "global_batch_size" in {record["key"] for record in mllog(tmp_path)}


def test_mllog_of_evaluations_by_steps(tmp_path) -> None:
    """Each evaluation ends a block of training, wherever in the epoch it is."""
    info = dataclasses.replace(MLINFO, config={**CONFIG, "evaluation": {"everySteps": 1}})
    bus = Bus([MLLog(tmp_path)])
    bus.start(info)
    for step in (1, 2):
        bus.step(StepRecord(step, 0.022, 4, 80))
        bus.evaluation(dataclasses.replace(EVALUATION, step=step, epoch=step / 2))
    bus.close()
    blocks = [record["metadata"] for record in mllog(tmp_path) if record["key"] == "block_start"]
    assert [(block["first_epoch_num"], block["epoch_count"]) for block in blocks] == [
        (1, 0.5),
        (1.5, 0.5),
    ]


BENCHMARK = {
    "worldSize": 2,
    "model": "bninception",
    "batchPerDevice": 64,
    "microBatches": 2,
    "precision": "FP16",
    "stepSeconds": 0.5,
    "stepSecondsVariance": 0.01,
    "computeSeconds": 0.4,
    "computeSecondsVariance": 0.02,
    "imagesPerSecond": 512.0,
    "deviceName": "MLU370-X8",
    "dataKind": "Synthetic",
}


def lines(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_benchmark_log_has_the_words_of_the_model_zoo() -> None:
    assert benchmark_figures(BENCHMARK, 1767225599) == {
        "net": "bninception",
        "batch_size": 128,
        "cards": 2,
        "precision": "amp",
        "DPF_mode": "ddp",
        "batch_time_avg": 0.5,
        "batch_time_var": 0.01,
        "hardware_time_avg": 0.4,
        "hardware_time_var": 0.02,
        "throughput": 512.0,
        "date": "2025-12-31 23:59:59",
        "device": "MLU370-X8",
        "dataset": "Synthetic",
    }
    alone = benchmark_figures(BENCHMARK | {"worldSize": 1, "precision": "FP32"}, 0)
    assert (alone["cards"], alone["DPF_mode"], alone["precision"]) == (1, "single", "fp32")


def test_logs_of_the_model_zoo_get_a_line_per_run(tmp_path) -> None:
    """Their folders are made; a run that was stopped and goes on has no figures yet."""
    accuracies, speeds = tmp_path / "a" / "b" / "accuracy", tmp_path / "c" / "speed"
    for finished in (True, False, True):
        feed(AccuracyLog(str(accuracies)), end=dataclasses.replace(END, finished=finished))
        feed(BenchmarkLog(str(speeds)), end=EndRecord(BENCHMARK, HISTORY, finished=finished))
    assert lines(accuracies) == [[95.0, 100.0]] * 2
    assert [line["throughput"] for line in lines(speeds)] == [512.0] * 2


@pytest.mark.parametrize("name", ["{folder}", "{folder}/file/below", "s3://bucket/log"])
def test_a_log_that_cannot_be_written_is_a_warning(name, tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    path = name.format(folder=tmp_path)
    with caplog.at_level("WARNING", logger=logger.name):
        monkeypatch.setattr(logger, "propagate", True)
        feed(AccuracyLog(path), Console())
    assert f"AVG_LOG: {path} " in caplog.text
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("mode", "log"),
    [
        ("Train", AccuracyLog),
        ("Evaluate", AccuracyLog),
        ("Benchmark", BenchmarkLog),
        ("Infer", None),
    ],
)
def test_logs_of_the_model_zoo_are_for_their_modes_and_rank_0(mode, log, tmp_path) -> None:
    settings = from_environment(
        {"BENCHMARK_LOG": str(tmp_path / "b"), "AVG_LOG": str(tmp_path / "a")}
    )
    chosen = [
        type(sink)
        for sink in build(settings, None, mode)
        if isinstance(sink, AccuracyLog | BenchmarkLog)
    ]
    assert chosen == ([log] if log else [])
    elsewhere = [dataclasses.replace(settings, rank=1, local_rank=1), Settings()]
    found = [sink for other in elsewhere for sink in build(other, None, mode)]
    assert not [sink for sink in found if isinstance(sink, AccuracyLog | BenchmarkLog)]


def test_tensorboard_tags(tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    feed(TensorBoard(tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        *("train/loss", "train/lr", "train/top1", "val/loss", "val/top1", "val/top5"),
        *("perf/images_per_second", "perf/data_wait_ratio", "perf/step_seconds"),
    }
    assert events.Scalars("val/top1")[0].step == 10


@pytest.mark.timeout(120)
def test_curves_are_a_picture(tmp_path) -> None:
    feed(Curves(tmp_path))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_smoothing_keeps_short_curves_and_constants() -> None:
    assert smoothed([1.0, 5.0, 2.0]) == [1.0, 5.0, 2.0]
    assert smoothed([3.0] * 100) == pytest.approx([3.0] * 100)


def test_a_broken_sink_is_dropped() -> None:
    class Broken(Sink):
        def log(self, record: LogRecord) -> None:
            raise OSError("disk full")

    bus = Bus([Broken()])
    bus.start(INFO)
    bus.log(LOG)
    bus.log(LOG)
    assert bus._sinks == []


def test_history_stays_bounded_and_survives_a_round_trip() -> None:
    progress = Progress(step=3, samples_seen=24)
    for step in range(3 * MOST_ROWS):
        progress.history.add_train([step, 0.1, 0.2, 0.3, 0.4])
    assert len(progress.history.train) <= MOST_ROWS
    assert progress.history.train[0][0] == 0
    again = Progress.from_dict(json.loads(json.dumps(progress.as_dict())) | {"unknown": 1})
    assert again == progress


def test_end_of_a_stopped_run(tmp_path: Path) -> None:
    summary = SUMMARY | {"steps": 10, "evaluatedStep": -1}
    path = tmp_path / "progress.json"
    feed(ProgressFile(path), Curves(tmp_path), end=EndRecord(summary, HISTORY, finished=False))
    assert json.loads(path.read_text())["metrics"]["progress"] == 0.5
    assert not (tmp_path / "curves.png").exists()
