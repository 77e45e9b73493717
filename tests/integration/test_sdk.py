"""The Python SDK and its notebook on the real API server, with a real operator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from inception_operator.sdk import (
    AnswerError,
    AsyncJob,
    ClientError,
    Job,
    TimedOutError,
    Training,
    TrainingFailed,
)
from notebooks import TRAIN, run
from operator_process import OperatorProcess
from trainings import Trainings, wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("operator")]
# Not before it has its assignment: a pod that ends with 0 without one has trained nothing.
ENDS_WELL = {"succeed-after": "3s"}
ENDS_BADLY = {"fail-after": "1ms", "exit-code": "65", "message": "bad\x1b[31m data"}


@pytest.fixture
def place(trainings: Trainings, tmp_path: Path) -> dict[str, Any]:
    """A kubeconfig whose context is the namespace of the test, as a reader's is."""
    config = yaml.safe_load(trainings.cluster.kubeconfig.read_text(encoding="utf-8"))
    for context in config["contexts"]:
        context["context"]["namespace"] = trainings.namespace
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return {"kubeconfig": str(file)}


def training(name: str, how: dict[str, str] | None = None, **spec: Any) -> Training:
    """A job of two pods on fake nodes, and how they end."""
    annotations = {f"kwok.localcluster/{key}": text for key, text in (how or {}).items()}
    fields: Any = {
        "numNodes": 2,
        "accelerator": {"profile": "cpu"},
        "template": {"metadata": {"annotations": annotations}},
        **spec,
    }
    return Training(name, recipe="bninception-digits", **fields)


def beside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_job_is_started_watched_and_its_result_taken(
    trainings: Trainings, place: dict[str, Any]
) -> None:
    with training("good", ENDS_WELL).submit(**place) as job:
        assert job.namespace == trainings.namespace
        seen = [progress.state for progress in job.watch(timeout=120)]
        assert seen[-1] == "Succeeded"
        assert len(seen) > 1
        result = job.result()
        assert (result.name, result.attempts, result.restarts) == ("good", 1, 0)
        assert result.duration is not None
        assert result.status["conditions"]
        job.delete(wait=True)
    assert trainings.gone("good")


def test_a_job_that_fails_and_one_that_is_rejected_say_why(place: dict[str, Any]) -> None:
    with training("bad", ENDS_BADLY).submit(**place) as job:
        with pytest.raises(TrainingFailed) as failed:
            job.result(timeout=120)
        assert (failed.value.state, failed.value.exit_code) == ("Failed", 65)
        assert failed.value.root_cause is not None
        assert failed.value.root_cause.exit_code == 65
        assert "\x1b" not in str(failed.value)
    unknown = {"profile": "no-such-profile"}
    with training("refused", accelerator=unknown).submit(**place) as job:
        with pytest.raises(TrainingFailed) as rejected:
            job.result(timeout=120)
        assert (rejected.value.state, rejected.value.exit_code) == ("Rejected", 78)


def test_the_api_server_refuses_what_python_cannot_see(
    trainings: Trainings, place: dict[str, Any]
) -> None:
    with pytest.raises(AnswerError, match=r"spec\.numProcPerNode"):
        training("wrong", numProcPerNode="many").check(**place)
    with pytest.raises(AnswerError, match=r"spec\.training\.optimizer\.learningRate"):
        training("wrong", training={"optimizer": {"learningRate": -1}}).submit(**place)
    made = training("right", training={"optimizer": {"learningRate": 1e-5}}).check(**place)
    assert made["spec"]["training"]["optimizer"]["learningRate"] == "0.00001"
    assert trainings.all() == []


def test_a_job_is_steered(trainings: Trainings, place: dict[str, Any]) -> None:
    elastic = training("job", elasticPolicy={"minNodes": 1, "maxNodes": 4})
    with elastic.submit(**place) as job:
        trainings.wait_state("job", "Running")
        with pytest.raises(TimedOutError):
            job.result(timeout=1)
        job.suspend()
        trainings.wait_state("job", "Suspended")
        job.resume()
        trainings.wait_state("job", "Running")
        job.scale(3)
        wait_for("three nodes", lambda: job.progress().nodes == "3/3", seconds=60)
        job.cancel()
        with pytest.raises(TrainingFailed) as caught:
            job.result(timeout=120)
        assert (caught.value.reason, caught.value.exit_code) == ("DeadlineExceeded", 1)
        with pytest.raises(AnswerError, match="did you mean job"):
            Job("jobb", **place).state()


async def test_many_jobs_are_watched_in_one_loop(
    trainings: Trainings, place: dict[str, Any]
) -> None:
    async def one(number: int) -> int:
        made = training(f"job-{number}", ENDS_WELL if number % 2 else ENDS_BADLY)
        async with await made.submit_async(**place) as job:
            states = [progress.state async for progress in job.watch(timeout=120)]
            assert states[-1] in ("Succeeded", "Failed")
            try:
                return (await job.result()).attempts - 1
            except TrainingFailed as failure:
                return failure.exit_code

    assert await asyncio.gather(*map(one, range(4))) == [65, 0, 65, 0]
    jobs = await AsyncJob.all(**place)
    assert sorted(job.name for job in jobs) == [f"job-{number}" for number in range(4)]
    await asyncio.gather(*(job.delete(wait=True) for job in jobs))
    await jobs[0].close()
    assert trainings.all() == []


def test_who_waits_learns_of_a_job_that_is_deleted(
    trainings: Trainings, place: dict[str, Any]
) -> None:
    with training("short").submit(**place) as job:
        trainings.wait_state("short", "Running")
        deleting = threading.Timer(1.0, trainings.delete, ("short",))
        deleting.start()
        with pytest.raises(ClientError, match="short has been deleted"):
            list(job.watch())
        deleting.join()


@pytest.mark.timeout(900)
def test_the_notebook_of_the_documents_runs(
    trainings: Trainings, place: dict[str, Any], operator: OperatorProcess, tmp_path: Path
) -> None:
    def play() -> None:
        """The fake nodes train nothing: the figures are written, and the pods end well."""
        (job,) = wait_for("the job of the notebook", trainings.all, seconds=600)
        name = job["metadata"]["name"]
        trainings.wait_state(name, "Running")
        figures = {"step": 7, "loss": "0.2500", "accuracyTop1": "0.9100"}
        written = {**figures, "lastUpdatedTime": "2026-01-01T00:00:00Z"}
        trainings.change_status(name, trainerStatus=written)
        for pod in trainings.pods(name):
            trainings.annotate(pod, succeed_after="1ms")

    playing = beside(play)
    shown = run(TRAIN, tmp_path, Path(place["kubeconfig"]))
    playing.join(60)
    watched, result, history = shown[2:5]
    assert watched.splitlines()[-1].startswith("Succeeded")
    assert result.startswith("91.0% after ")
    assert "validation_top1" in history
    assert trainings.all() == []
