"""Every command of the plug-in on the real API server, with a real operator."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inception_operator.contract import names
from localcluster.cluster import Cluster
from localcluster.pytest_plugin import fresh_namespace
from operator_process import OperatorProcess
from plugin_commands import Commands, Result
from trainings import Trainings, wait_for

pytestmark = pytest.mark.timeout(180)

LEASE = "inception-operator"
ENDS_BADLY = {"fail-after": "1ms", "exit-code": "65", "message": "bad\x1b[31m data"}


def kwok(**annotations: str) -> str:
    """The option of run that steers the fake nodes on which the pods run."""
    found = {
        f"kwok.localcluster/{key.replace('_', '-')}": text for key, text in annotations.items()
    }
    return f"--set=spec.template.metadata.annotations={json.dumps(found)}"


@pytest.fixture(scope="module")
def leader(
    training_api: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """An operator with a Lease, which the chart makes elsewhere."""
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LEASE, "namespace": "default"},
    }
    training_api.kubectl("apply", "--filename=-", input=json.dumps(lease))
    log = tmp_path_factory.mktemp("operator") / "log"
    with OperatorProcess(training_api.kubeconfig, log, lease=LEASE) as process:
        yield process
    training_api.kubectl("delete", "lease", LEASE, "--namespace=default")


@pytest.fixture(scope="module")
def shared(training_api: Cluster, leader: OperatorProcess) -> Iterator[Trainings]:
    """A namespace of all tests of this file, with one job that runs and is left alone."""
    with fresh_namespace(training_api) as namespace, Trainings(training_api, namespace) as found:
        found.create("steady", training={"recipe": "bninception-digits"})
        found.wait_state("steady", "Running")
        yield found


def within(asked: Any, there: Any) -> bool:
    """Whether all of one document is in another, with the same values."""
    if isinstance(asked, dict):
        return all(key in there and within(asked[key], there[key]) for key in asked)
    if isinstance(asked, list):
        pairs = zip(asked, there, strict=True)
        return all(within(mine, theirs) for mine, theirs in pairs)
    return bool(asked == there)


def start(command: Commands, name: str, *options: str) -> Result:
    """A job of two pods on fake nodes."""
    return command(
        *("run", name, "--recipe=bninception-digits", "--accelerator=cpu", "--nodes=2"),
        *("--checkpoint=/tmp/inception", *options),
    )


def test_jobs_are_listed_shown_and_described(command: Commands, shared: Trainings) -> None:
    listed = command("list").out.splitlines()
    assert listed[0].split() == [
        *("NAME", "STATE", "NODES", "ACCELERATOR", "PROGRESS", "TOP1", "IMG/S", "RESTARTS", "AGE"),
    ]
    assert next(line for line in listed if line.startswith("steady ")).split()[1:4] == [
        *("Running", "2/2", "cpu")
    ]
    assert shared.namespace in command("list", "--all-namespaces").out
    assert "steady" not in command("list", "--state=failed").out
    assert "No jobs found" in command("list", "--selector=team=none").err
    assert "MODEL" in command("get", "steady", "-o", "wide").out
    assert command("get", "steady", "-o", "name").out == (
        f"{names.PLURAL[:-1]}.{names.GROUP}/steady\n"
    )
    whole = yaml.safe_load(command("get", "steady", "-o", "yaml").out)
    assert whole["spec"] == shared.get("steady")["spec"]
    assert command("list", "-o", "json").json["kind"] == "List"

    page = command("describe", "steady").out
    assert page.startswith(f"steady in {shared.namespace}: Running")
    for part in ("recipe      bninception-digits", "steady-1-1", "attempt     1", "goodput"):
        assert part in page
    assert "steady" in command("top", "--once").out


def test_run_creates_what_its_options_say(command: Commands, shared: Trainings) -> None:
    options = (
        *("--set=optimizer.learningRate=0.5", "--set=spec.failurePolicy.nodeLostSeconds=60"),
        *("--memory=1Gi", "--mount=data:/data:ro", "--env=A=b", "--suspend", "--deadline=2h"),
        *("--min-nodes=1", "--max-nodes=4", "--max-restarts=3"),
    )
    asked = yaml.safe_load(
        command("run", "dry", "--recipe=bninception-digits", *options, "--dry-run").out
    )
    there = yaml.safe_load(
        command("run", "dry", "--recipe=bninception-digits", *options, "--dry-run=server").out
    )
    # The API server adds its defaults, and takes nothing away.
    assert within(asked["spec"], there["spec"])
    assert "dry" not in [job["metadata"]["name"] for job in shared.all()]
    assert asked["spec"]["training"]["optimizer"] == {"learningRate": "0.5"}
    assert asked["spec"]["runPolicy"] == {"suspend": True, "activeDeadlineSeconds": 7200}
    assert asked["spec"]["failurePolicy"] == {"maxRestarts": 3, "nodeLostSeconds": 60}

    made = command(
        "run", "program", "--suspend", "-o", "json", "--", "torchrun", "a.py", "--x", "1"
    )
    (container,) = made.json["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["torchrun", "a.py", "--x", "1"]
    again = command.run("run", "program", "--", "torchrun", "a.py")
    assert again.code == 1
    assert "there is a job program" in again.err
    command("delete", "program", "--wait")
    assert shared.gone("program")


def test_jobs_are_compared(command: Commands, shared: Trainings) -> None:
    shared.create("held", nodes=3, runPolicy={"suspend": True})
    shown = command("compare", "steady", "held").out.splitlines()
    assert shown[0].split() == ["steady", "held"]
    assert shown[1].split()[:2] == ["state", "Running"]
    assert ["numNodes", "2", "3"] in [line.split() for line in shown]
    found = command("compare", "steady", "held", "-o", "json").json
    assert found["spec"]["held"]["numNodes"] == 3
    assert "training.recipe" in found["spec"]["steady"]
    once = command.run("compare", "steady", "steady")
    assert (once.code, "two or more jobs" in once.err) == (2, True)
    command("delete", "held")


def test_the_file_that_init_writes_is_accepted_with_all_that_it_suggests(
    command: Commands, shared: Trainings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    Commands(capsys)("init", "first", "--recipe=bninception-digits", f"--file={file}")
    text = file.read_text(encoding="utf-8")
    for content in (text, re.sub(r"(?m)^  #(?! \S)", "  ", text)):
        created = shared.cluster.kubectl(
            *("create", "--dry-run=server", "--validate=strict", "--filename=-"),
            *(f"--namespace={shared.namespace}", "--output=json"),
            input=content,
        )
        assert within(yaml.safe_load(content)["spec"], json.loads(created)["spec"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "x", "--recipe=bninception-digts"), 2, "did you mean bninception-digits?"),
        (("run", "x"), 2, "nothing says what to train"),
        (("run", "x", "--recipe=bninception-digits", "--set=epoch=3"), 1, "spec.training.epoch"),
        (
            ("run", "x", "--recipe=bninception-digits", "--set=optimizer.learningRate=1"),
            *(1, "Decimal numbers are strings"),
        ),
        (("describe", "stedy"), 3, "did you mean steady?"),
        (("suspend", "nothing-like-it"), 3, "there is no InceptionTraining nothing-like-it"),
        (("delete", "stedy"), 3, "did you mean steady?"),
        (("logs", "stedy"), 3, "did you mean steady?"),
        (("wait", "stedy"), 3, "did you mean steady?"),
        (("scale", "steady", "--nodes=3"), 1, "spec.numNodes cannot change"),
        (("wait", "steady", "--timeout=1s"), 124, "the time is over"),
        (("explain", "optimizer.momentun"), 1, "did you mean optimizer.momentum?"),
        (("list", "--context=other"), 69, "--context"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_cannot_be_done_says_why(
    command: Commands, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = command.run(*arguments)
    assert result.code == code, result
    assert said in result.err
    assert result.out == ""


def test_who_is_not_allowed_to_is_told_what_to_ask_for(
    command: Commands, shared: Trainings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cluster, here = shared.cluster, f"--namespace={shared.namespace}"
    token = cluster.kubectl("create", "token", "default", here).strip()
    config: dict[str, Any] = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    weak = tmp_path / "config"
    weak.write_text(json.dumps(config), encoding="utf-8")
    stranger = Commands(capsys, f"--kubeconfig={weak}", here)

    refused = stranger.run("list")
    assert refused.code == 77
    assert "the role edit" in refused.err
    examined = stranger("doctor")
    assert "you may not list inceptiontrainings" in examined.out
    assert "its Lease cannot be read" in examined.out


def test_wait_ends_with_the_code_of_the_job(command: Commands, shared: Trainings) -> None:
    done = start(command, "good", kwok(succeed_after="1ms"), "--wait")
    assert "good: Succeeded" in done.err
    failed = command.run(
        *("run", "bad", "--recipe=bninception-digits", "--accelerator=cpu", "--wait"),
        *("--checkpoint=/tmp/inception", kwok(**ENDS_BADLY)),
    )
    assert failed.code == 65, failed
    assert "bad: Failed" in failed.err
    assert command.run("watch", "bad").code == 65
    page = command("describe", "bad").out
    assert "exit code 65" in page
    assert "\x1b" not in page
    over = command.run("resume", "bad")
    assert over.code == 1
    assert "never comes back" in over.err
    command("delete", "good", "bad")
    command("delete", "good", "--ignore-not-found")


def test_a_job_is_suspended_resumed_restarted_scaled_and_cancelled(
    command: Commands, shared: Trainings
) -> None:
    start(command, "job", "--min-nodes=1", "--max-nodes=4")
    command("wait", "job", "--for=running", "--timeout=60s")
    command("suspend", "job", "--wait", "--timeout=60s")
    assert shared.status("job")["state"] == "Suspended"
    assert "kubectl inception resume job" in command("describe", "job").out
    held = command.run("cancel", "job")
    assert held.code == 1
    assert "does not run" in held.err
    command("resume", "job")
    attempt = shared.wait_state("job", "Running")["attempt"]
    command("restart", "job")
    shared.wait_state("job", "Running", attempt=attempt + 1)
    command("scale", "job", "--nodes=3")
    wait_for("three nodes", lambda: shared.status("job")["nodes"].get("summary") == "3/3")
    command("cancel", "job")
    ended = command.run("wait", "job")
    assert ended.code == 1
    assert "DeadlineExceeded" in ended.err
    command("delete", "job", "--wait")
    assert shared.gone("job")


def test_who_waits_learns_of_a_job_that_is_deleted(command: Commands, shared: Trainings) -> None:
    shared.create("short")
    shared.wait_state("short", "Running")
    deleting = threading.Timer(1.0, shared.delete, ("short",))
    deleting.start()
    result = command.run("watch", "short")
    deleting.join()
    assert result.code == 3
    assert "Running" in result.out
    assert "short has been deleted" in result.err


def test_logs_name_each_pod_whose_log_cannot_be_had(command: Commands) -> None:
    # Nobody writes logs on fake nodes; tests/e2e has those of the real one.
    result = command.run("logs", "steady", "--tail=5")
    assert result.code == 1
    assert "[steady-0-1] no log: " in result.err
    assert "[steady-1-1] no log: " in result.err
    replaced = command.run("logs", "steady", "--previous")
    assert replaced.code == 1
    assert "no pod of steady was replaced" in replaced.err


def test_the_cluster_says_what_fields_mean_and_how_it_is(command: Commands) -> None:
    assert "<string>" in command("explain", "optimizer.momentum").out
    assert "spec.checkpoint <object>" in command("explain", "checkpoint").out
    assert "status <object>" in command("explain", "status").out
    found = {each["subject"]: each for each in command("doctor", "-o", "json").json}
    assert found["operator"]["verdict"] == "ok", found
    assert {each["verdict"] for each in found.values()} == {"ok", "warning"}
    # No Deployment here, so its release is not known.
    assert found["release"]["verdict"] == "warning"
    versions = command("version", "-o", "json").json
    assert versions["kubernetes"].startswith("v1.")
    assert versions["operator"] is None
