"""The parts of the Python SDK: fields, names, lines of the log, frames of pandas."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from inception_operator.client.errors import ClientError
from inception_operator.client.place import Place
from inception_operator.client.pod_logs import Line
from inception_operator.contract.names import MAX_JOB_NAME_LENGTH
from inception_operator.sdk import Progress, Training, history
from inception_operator.sdk.fitting import fitted
from inception_operator.sdk.metrics import Metric, metric_of
from manifests import generate_sdk_fields

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "support" / "recorded_run"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
Json = dict[str, Any]


@pytest.mark.parametrize(
    ("spec", "there"),
    [
        ({"training": {"optimizer": {"learningRate": 0.1}}}, "0.1"),
        ({"training": {"optimizer": {"learningRate": 1e-5}}}, "0.00001"),
        ({"training": {"optimizer": {"learningRate": 100}}}, "100"),
        ({"training": {"optimizer": {"learningRate": 250.0}}}, "250"),
        ({"training": {"optimizer": {"learningRate": "1e-4"}}}, "1e-4"),
        ({"training": {"optimizer": {"learningRate": Fraction(1, 4)}}}, "0.25"),
    ],
)
def test_decimal_numbers_become_the_strings_that_the_api_has(spec: Json, there: str) -> None:
    assert fitted(spec)["training"]["optimizer"]["learningRate"] == there


def test_other_values_are_left_as_they_are() -> None:
    spec: Json = {
        "numNodes": 2,
        "numProcPerNode": "auto",
        "image": None,
        "training": {"batch": {"global": 256}, "loss": {"classWeights": (0.5, 2)}},
        "runPolicy": {"suspend": True},
        "template": {"spec": {"containers": [{"name": "trainer", "env": [{"name": "A"}]}]}},
    }
    assert fitted(spec) == {
        "numNodes": 2,
        "numProcPerNode": "auto",
        "training": {"batch": {"global": 256}, "loss": {"classWeights": ["0.5", "2"]}},
        "runPolicy": {"suspend": True},
        "template": {"spec": {"containers": [{"name": "trainer", "env": [{"name": "A"}]}]}},
    }


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"numNode": 2}, "there is no field numNode\ndid you mean numNodes?"),
        (
            {"training": {"optimizer": {"learningrate": 1}}},
            "there is no field training.optimizer.learningrate\ndid you mean learningRate?",
        ),
        ({"checkpoint": {"xyz": 1}}, "There are: "),
        ({"checkpoint": "claim"}, "checkpoint must be a dict, not 'claim'"),
        (
            {"training": {"optimizer": {"learningRate": float("nan")}}},
            "training.optimizer.learningRate must be a number, not nan",
        ),
    ],
)
def test_a_field_that_cannot_be_is_named(spec: Json, said: str) -> None:
    with pytest.raises(ClientError) as caught:
        fitted(spec)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "nothing says what to train"),
        ({"recipe": "bninception-digts"}, "did you mean bninception-digits?"),
        ({"recipe": "zzzz"}, 'training={"recipe": "zzzz"} asks for one of another trainer image'),
        (
            {"recipe": "bninception-digits", "training": {"recipe": "other"}},
            "recipe and training.recipe are both given",
        ),
    ],
)
def test_a_training_that_cannot_be_is_refused_before_it_is_sent(options: Json, said: str) -> None:
    with pytest.raises(ClientError) as caught:
        Training(**options)
    assert said in str(caught.value)


def test_a_training_is_the_resource_that_one_would_write() -> None:
    training = Training(
        "mine",
        recipe="of-my-image",
        image="registry/mine",
        labels={"team": "vision"},
        training={"optimizer": {"learningRate": 0.5}},
    )
    assert yaml.safe_load(str(training)) == training.resource
    assert training.resource["metadata"] == {"name": "mine", "labels": {"team": "vision"}}
    assert training.resource["spec"] == {
        "training": {"recipe": "of-my-image", "optimizer": {"learningRate": "0.5"}},
        "image": "registry/mine",
    }
    program = {"spec": {"containers": [{"name": "trainer", "command": ["torchrun", "a.py"]}]}}
    assert Training(template=program).name.startswith("training-")


def test_names_that_are_made_are_taken_by_the_api_and_differ() -> None:
    long = Training(recipe="x." * 40, image="registry/mine").name
    assert MAX_JOB_NAME_LENGTH - 1 <= len(long) <= MAX_JOB_NAME_LENGTH
    assert set(long) <= set("0123456789abcdefx-")
    made = {Training(recipe="bninception-digits").name for _ in range(20)}
    assert len(made) == 20


@pytest.mark.parametrize("sample", sorted((ROOT / "manifests" / "samples").glob("*.yaml")))
def test_every_sample_can_be_read_from_its_file(sample: Path, tmp_path: Path) -> None:
    documents = [one for one in yaml.safe_load_all(sample.read_text("utf-8")) if one]
    for one in documents:
        if one["kind"] == "InceptionTraining":
            file = tmp_path / "job.yaml"
            file.write_text(yaml.safe_dump(one), encoding="utf-8")
            assert Training.from_file(file).resource["spec"] == one["spec"]


def test_a_file_says_where_it_is_started_and_keeps_what_is_written_on_it(tmp_path: Path) -> None:
    metadata = {
        "name": "x",
        "namespace": "team",
        "labels": {"a": "b"},
        "annotations": {"example.org/c": "d"},
    }
    job = {"kind": "InceptionTraining", "metadata": metadata, "spec": {"training": {"recipe": "r"}}}
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job), encoding="utf-8")
    training = Training.from_file(file)
    assert training.resource["metadata"] == metadata
    assert training.namespace == "team"


@pytest.mark.parametrize("text", ["kind: Pod", "[", "- 1", "{kind: InceptionTraining, spec: 5}"])
def test_a_file_without_a_training_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ClientError, match=r"job\.yaml"):
        Training.from_file(file)


def test_the_types_of_fields_tell_numbers_from_words() -> None:
    source = generate_sdk_fields.TARGET.read_text(encoding="utf-8")
    for line in (
        "    learningRate: Decimal",
        "    recipe: str",
        "    numNodes: int",
        "    numProcPerNode: int | str",
        '    mode: Literal["Train", "Evaluate", "Benchmark", "Infer", "Export", "Preflight"]',
        '        "global": int,',
        "    accuracyTop1: str",
    ):
        assert line in source.splitlines(), line


def line(text: str) -> Line:
    return Line("digits-0-1", "2026-01-01T00:00:01.123456789Z", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "loss 1.5",
        "00:00:01 [digits attempt 1 rank 1] epoch 1/2 step 1/2 5 % loss 1 top-1 1 % lr 1 1 img/s 1",
        "00:00:01 [digits attempt 1 rank 0] epoch x/2 step 1/2 5 % loss 1 top-1 1 % lr 1 1 img/s 1",
    ],
)
def test_other_lines_have_no_figures(text: str) -> None:
    assert metric_of(line(text)) is None


def test_figures_that_are_none_are_kept() -> None:
    found = metric_of(
        line(
            "00:00:01 [attempt 2 rank 0] epoch 1/2 step 1/2 5 % loss nan top-1 0.0 % "
            "lr 0.00001 0 img/s 1 ms/step data 0 % idle 3 % left 0:00:00"
        )
    )
    assert found is not None
    assert found.loss is not None
    assert found.loss != found.loss
    assert (found.attempt, found.learning_rate) == (2, 0.00001)
    assert found.time == datetime(2026, 1, 1, 0, 0, 1, 123456, tzinfo=UTC)


def test_rows_come_from_the_logs_and_else_from_what_was_watched() -> None:
    later = Metric(time=NOW + timedelta(seconds=1), attempt=1, step=2, loss=0.5)
    rows = history.rows_of("x", [later, Metric(time=NOW, attempt=1, step=1)], [], None)
    assert [row["step"] for row in rows] == [1, 2]
    seen = [Progress("Pending"), Progress("Running", attempt=1, step=7, loss=0.5, time=NOW)]
    (row,) = history.rows_of("x", [], seen, ClientError("no log"))
    assert (row["step"], row["loss"], row["time"]) == (7, 0.5, NOW)
    with pytest.raises(ClientError, match="no figures of x: you may not, and nobody") as caught:
        history.rows_of("x", [], seen[:1], ClientError("you may not"))
    assert "history(files=" in str(caught.value)


def test_a_frame_has_all_columns_whatever_is_known() -> None:
    frame = history.frame([{"time": NOW, "step": 7, "loss": 0.5}])
    assert list(frame.columns) == [column for column in history.COLUMNS if column != "time"]
    assert frame.index.name == "time"
    assert str(frame["step"].dtype) == "Int64"
    assert frame["loss"].iloc[0] == 0.5
    assert frame["epoch"].isna().all()


def test_the_files_of_a_run_have_its_history() -> None:
    rows = history.of_files(RECORDED)
    frame = history.frame(rows)
    assert frame.index.is_monotonic_increasing
    assert frame["loss"].count() == 12
    assert frame["learning_rate"].count() == 12
    assert frame["validation_top1"].count() == 2
    assert frame["validation_top1"].max() == 0.25
    with pytest.raises(ClientError, match="holds no history"):
        history.of_files(ROOT / "docs")


def test_without_pandas_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ClientError, match="the package pandas is not installed") as caught:
        history.frame([])
    assert "pip install pandas" in str(caught.value)


def test_a_pod_without_a_kubeconfig_is_at_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not Place().is_at_home
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert Place().is_at_home
    assert not Place(context="other").is_at_home
    assert not Place(kubeconfig="file").is_at_home
    with pytest.raises(ClientError, match="serviceaccount/namespace"):
        _ = Place().namespace
    monkeypatch.setenv("KUBECONFIG", "file")
    assert not Place().is_at_home
    monkeypatch.delenv("KUBECONFIG")
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()
    assert not Place().is_at_home
