"""The demo's decisions and its words; the run itself is tested on the real node."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from demo import clusters, images, run, together
from demo.clusters import choose
from demo.follow import Screen, blocking_message, ended, follow, job_line, progress_line
from demo.kube import DemoError, Kube
from demo.outlook import Outlook, Part, Say, local_parts
from localcluster.controlplane import required_components
from localcluster.model import ClusterSpec


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        pytest.param({}, "local", id="nothing said"),
        pytest.param({"KUBECONFIG": "/etc/config"}, "existing", id="KUBECONFIG"),
        pytest.param({"CLUSTER": "kind"}, "kind", id="CLUSTER=kind"),
        pytest.param({"CLUSTER": "local", "KUBECONFIG": "/etc/config"}, "local", id="CLUSTER wins"),
    ],
)
def test_choice_of_cluster(environment: dict[str, str], kind: str) -> None:
    assert choose(environment) == kind


def test_unknown_cluster_lists_the_known() -> None:
    with pytest.raises(DemoError, match=r"CLUSTER=k3s: expected one of local, kind, existing"):
        choose({"CLUSTER": "k3s"})


def test_machine_without_root_is_told_what_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters.os, "geteuid", lambda: 1000)
    with pytest.raises(DemoError) as caught:
        clusters.start_local({}, Say())
    text = str(caught.value)
    assert text.startswith("A local node needs root")
    for offer in ("KUBECONFIG=", "CLUSTER=kind", "make train-local"):
        assert offer in text


def test_machine_that_is_not_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters.platform, "system", lambda: "Darwin")
    assert clusters.obstacle() == "A local node needs Linux, this is Darwin."


def test_own_cluster_without_images_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"make images.*push"):
        clusters.start_existing({"KUBECONFIG": str(tmp_path)}, print)


def test_missing_kubeconfig_is_named() -> None:
    environment = {"KUBECONFIG": "/nowhere/config", "OPERATOR_IMAGE": "a:1", "TRAINER_IMAGE": "b:1"}
    with pytest.raises(DemoError, match="KUBECONFIG=/nowhere/config"):
        clusters.start_existing(environment, print)


def test_kind_without_docker_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters.shutil, "which", lambda tool: None)
    with pytest.raises(DemoError, match="needs docker and kind"):
        clusters.start_kind({}, print)


def job(**status: Any) -> dict[str, Any]:
    return {"status": status}


def test_progress_line_shows_what_is_known() -> None:
    trainer = {
        "progressPercentage": 50,
        "epoch": 4,
        "accuracyTop1": "0.9610",
        "samplesPerSecond": "270.5",
    }
    line = progress_line(
        job(state="Running", nodes={"summary": "2/2"}, trainerStatus=trainer, restarts=1)
    )
    for word in (
        "Running",
        "nodes 2/2",
        " 50 %",
        "epoch 4",
        "top-1 0.9610",
        "img/s 270.5",
        "restarts 1",
    ):
        assert word in line
    assert line.count("#") == line.count(".") - 2, (
        "half of the bar, and the points of the two figures"
    )


def test_progress_line_of_a_new_job() -> None:
    assert "Pending" in progress_line({})


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], False),
        ([("Succeeded", "Unknown")], False),
        ([("Succeeded", "True")], True),
        ([("Failed", "True")], True),
    ],
)
def test_end_of_a_job(conditions: list[tuple[str, str]], expected: bool) -> None:
    assert (
        ended(job(conditions=[{"type": kind, "status": value} for kind, value in conditions]))
        is expected
    )


def test_blocking_message_is_the_clusters_own() -> None:
    condition = {
        "type": "PodsReady",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes",
    }
    assert blocking_message(job(conditions=[condition])) == "Unschedulable: 0/1 nodes"
    assert blocking_message(job(conditions=[{**condition, "status": "True"}])) is None
    refusal = {
        "type": "Accepted",
        "status": "False",
        "reason": "InvalidSpec",
        "message": "spec.x: no",
    }
    assert blocking_message(job(conditions=[condition, refusal])) == "InvalidSpec: spec.x: no"


WAITING = {
    "type": "PodsReady",
    "status": "False",
    "reason": "WaitingForPods",
    "message": "0 of 2 pods ready",
}


@pytest.mark.parametrize(
    ("state", "more", "words"),
    [
        ("Pending", [], "Pending     WaitingForPods: 0 of 2 pods ready"),
        ("Running", [], "Running     nodes"),
        ("Failed", [{"type": "Failed", "status": "True"}], "Failed      nodes"),
    ],
)
def test_a_job_has_one_line(state: str, more: list[dict[str, str]], words: str) -> None:
    assert job_line(job(state=state, conditions=[WAITING, *more])).startswith(words)


def test_a_pending_job_is_shown_once_however_often_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over = job(state="Succeeded", conditions=[{"type": "Succeeded", "status": "True"}])
    answers = [*[job(state="Pending", conditions=[WAITING])] * 3, over]
    kube = SimpleNamespace(read=lambda *_: answers.pop(0))
    monkeypatch.setattr("demo.follow.POLL_SECONDS", 0)
    monkeypatch.setattr("demo.follow.Screen", lambda: Screen(sys.stdout))
    assert follow(cast("Kube", kube), "ns", "job", tmp_path / "metrics") == over
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Pending", "Succeeded"]


def test_screen_prints_changes_once() -> None:
    out = io.StringIO()
    screen = Screen(out)
    for line in ("a", "a", "b"):
        screen.show(line)
    assert out.getvalue() == "  a\n  b\n"


def test_failed_tool_carries_its_complaint(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="No such file"):
        Kube(tmp_path / "config", kubectl="cat").run("/nowhere/at/all")


def test_locks_of_the_images_exist() -> None:
    for names in images.LOCKS.values():
        assert all((images.ROOT / "requirements" / name).is_file() for name in names)


def test_install_yaml_gets_the_images_of_the_cluster() -> None:
    objects = list(yaml.safe_load_all(run.operator_manifest("somewhere/o:1", "somewhere/t:2")))
    (deployment,) = (item for item in objects if item["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "somewhere/o:1"
    assert container["args"][1:3] == ["--trainer-image", "somewhere/t:2"]


def test_tear_down_on_another_cluster_leaves_the_crd() -> None:
    deleted: list[str] = []
    kube = SimpleNamespace(run=lambda *_, stdin="": deleted.append(stdin))
    run.remove_objects(cast("Kube", kube), lambda message: None)
    kinds = [item["kind"] for text in deleted for item in yaml.safe_load_all(text) if item]
    assert {"Namespace", "Deployment", "ClusterRole"} <= set(kinds)
    assert "CustomResourceDefinition" not in kinds


def test_percent_grows_with_what_is_done_and_never_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("demo.outlook.time.monotonic", lambda: now)
    done: set[str] = set()
    parts = {"long": 80.0, "short": 20.0, "there already": 500.0}
    done.add("there already")
    outlook = Outlook(
        Part(seconds, lambda name=name: name in done) for name, seconds in parts.items()
    )
    assert outlook.seconds == 100
    seen = [outlook.percent()]
    now = 40.0
    seen.append(outlook.percent())
    now = 900.0
    seen.append(outlook.percent())
    done.add("short")
    seen.append(outlook.percent())
    done.add("long")
    seen.append(outlook.percent())
    assert seen == [0, 40, 72, 72, 100]


def test_a_cold_demo_says_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    programs = required_components(ClusterSpec(dns=False))
    say = Say()
    say.outlook = Outlook(local_parts(programs, set()))
    say(say.outlook.announcement(len(programs)))
    line = capsys.readouterr().out
    assert line.startswith("[    0 s, about 0 %] about ")
    assert f"minutes on two cores: {len(programs)} programs are built first" in line
    assert "programs" not in say.outlook.announcement(0)


def test_a_part_that_fails_ends_the_others_at_once() -> None:
    def fail() -> None:
        raise DemoError("no disk")

    def wait_long() -> None:
        subprocess.run(["sleep", "60"], check=True)

    started = time.monotonic()
    with pytest.raises(DemoError, match="no disk"):
        together.run_together([wait_long, fail, wait_long])
    assert time.monotonic() - started < 30


def test_parts_run_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=30)
    together.run_together([meeting.wait, meeting.wait])


def test_the_demo_builds_no_dns_server_and_no_helm() -> None:
    programs = required_components(ClusterSpec(dns=False))
    assert not {"coredns", "helm"} & set(programs)
    assert set(required_components(together.BUILDER)) < set(programs)


IMPORTS = """
import importlib.metadata, re, sys
pinned = set(sys.argv[1].split())

class OnlyPinned:
    def find_spec(self, name, path=None, target=None):
        owners = {re.sub("[._]", "-", owner).lower() for owner in OWNERS.get(name, ())}
        if owners and not owners & pinned:
            raise ModuleNotFoundError(f"{name} is not there", name=name)

OWNERS = importlib.metadata.packages_distributions()
sys.meta_path.insert(0, OnlyPinned())
import demo.__main__, demo.together, localcluster.cluster
import importlib
import inception_operator.plugin.cli, inception_operator.report.__main__
for module, _ in inception_operator.plugin.cli.COMMANDS.values():
    importlib.import_module(f"inception_operator.plugin.{module}")
"""


def test_all_that_the_demo_imports_is_in_its_lock() -> None:
    lock = (images.ROOT / "requirements" / "demo.txt").read_text(encoding="utf-8")
    pinned = re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)
    paths = os.pathsep.join(str(images.ROOT / part) for part in (".", "operator", "trainer"))

    def imported(packages: list[str]) -> str:
        argv = [sys.executable, "-c", IMPORTS, " ".join(packages)]
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        return done.stderr

    assert imported(pinned) == ""
    assert "kubernetes is not there" in imported([name for name in pinned if name != "kubernetes"])
