"""The commands of the documents, typed into a shell as they stand there: on a real API server with
fake nodes, with the files that the documents show. Which ones: tests/support/docs_table.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from docs_commands import ROOT
from docs_table import ALONE, CLUSTER, INSTALL, Run, Story
from localcluster import components
from localcluster.cluster import Cluster
from localcluster.progress import to_stderr
from localcluster.pytest_plugin import fresh_namespace
from operator_process import OperatorProcess
from trainings import wait_for, wait_served

pytestmark = pytest.mark.timeout(900)
CHECKOUT = ("charts", "manifests", "docs", "pyproject.toml")
LEASE = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "inception-operator", "namespace": "default"},
}
PICTURES = """
import sys
from pathlib import Path
from PIL import Image
pets, photos = map(Path, sys.argv[1:])
for number in range(40):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            file = pets / split / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (number * 6, len(name + split), 7)).save(file)
    photos.mkdir(exist_ok=True)
for number in range(4):
    Image.new("RGB", (40, 40), (9, number * 6, 7)).save(photos / f"{number}.png")
"""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build programs before the clock of the first test starts."""
    if not session.config.option.collectonly:
        components.build(["helm", "kubectl", "prometheus"], to_stderr)


def told(stories: tuple[Story, ...]) -> list[object]:
    """Parameters: a story each, by its name."""
    return [
        pytest.param(story, id=story.name, marks=pytest.mark.nightly if story.nightly else ())
        for story in stories
    ]


class Shell:
    """A reader's terminal: a folder like a checkout, and the programs that the documents name."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        programs = folder / ".bin"
        programs.mkdir()
        write_programs(programs)
        for name in CHECKOUT:
            (folder / name).symlink_to(ROOT / name)
        write_shown_files(folder)
        support = ROOT / "tests" / "support"
        pictures = folder / ".pictures.py"
        pictures.write_text(PICTURES, encoding="utf-8")
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'trainer'}",
            "MANIFESTS": str(support / "foreign_manifests"),
            "RECORDED": str(support / "recorded_run"),
            "PICTURES": f"{sys.executable} {pictures}",
            **variables,
        }

    def tell(self, story: Story) -> None:
        """Type a story in, and look at each answer."""
        for step in story.steps:
            if isinstance(step, str):
                self._run(step)
            elif step.until:
                self._run_until(self._typed(step), step.until)
            else:
                output = self._run(self._typed(step))
                for words in step.says:
                    assert self._filled(words) in output, f"{step.command}\n{output}"

    def _typed(self, step: Run) -> str:
        text = step.command
        for word, stands_for in step.words.items():
            # NAME is no part of NAMESPACE.
            end = r"(?![A-Za-z])" if word[-1].isalpha() else ""
            text = re.sub(re.escape(word) + end, stands_for.replace("\\", r"\\"), text)
        return text

    def _filled(self, words: str) -> str:
        return words.replace("$NAMESPACE", self._environment.get("NAMESPACE", ""))

    def _start(self, script: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _run(self, script: str) -> str:
        log = self.folder / ".log"
        process = self._start(script, log)
        try:
            code = process.wait(400)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        output = log.read_text(encoding="utf-8", errors="replace")
        assert code == 0, f"{script}\nended with {code}:\n{output}"
        return output

    def _run_until(self, script: str, wanted: str) -> None:
        """A command that goes on for ever, stopped once it has said what was waited for."""
        log = self.folder / ".log"
        process = self._start(script, log)

        def has_said() -> bool:
            return wanted in log.read_text(encoding="utf-8", errors="replace")

        try:
            wait_for(
                f"{script} says {wanted}", lambda: has_said() or process.poll() is not None, 90
            )
            assert has_said(), f"{script}\n{log.read_text(encoding='utf-8', errors='replace')}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def write_programs(folder: Path) -> None:
    """The programs that installing brings, Kubernetes' own, and Python by both of its names."""
    for name, path in components.build(["helm", "kubectl"], to_stderr).items():
        (folder / name).symlink_to(path)
    # No link: an interpreter looks for the packages of its environment beside its own name.
    write_script(folder / "python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, entry in project["scripts"].items():
        module, _, function = entry.partition(":")
        write_script(
            folder / name,
            f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
            f"sys.exit({function}())\n",
        )


def write_script(program: Path, text: str) -> None:
    program.write_text(text, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def write_shown_files(folder: Path) -> None:
    """The YAML that the documents show, as files: README-1.yaml is the first of README.md."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        tokens = MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
        shown = [token.content for token in tokens if token.info == "yaml"]
        for number, text in enumerate(shown, 1):
            (folder / f"{page.stem}-{number}.yaml").write_text(text, encoding="utf-8")


def kubeconfig(cluster: Cluster, namespace: str, folder: Path) -> Path:
    """The credentials of a reader whose commands go to this namespace."""
    config = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
    for entry in config["contexts"]:
        entry["context"]["namespace"] = namespace
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("story", told(ALONE))
def test_commands_without_a_cluster(story: Story, tmp_path: Path) -> None:
    Shell(tmp_path).tell(story)


@pytest.fixture
def cleared(control_plane: Cluster) -> Iterator[Cluster]:
    """A cluster of which nothing of ours is left, before and afterwards."""
    # The tests before it on this cluster have left their rights.
    remove_ours(control_plane)
    yield control_plane
    remove_ours(control_plane)
    control_plane.kubectl("apply", "--server-side", f"--filename={ROOT / 'manifests/crd.yaml'}")
    wait_served(control_plane)


def remove_ours(cluster: Cluster) -> None:
    """Everything that installs or stories make but the CRD."""
    names = ("inception-system", "team-a", "team-b")
    cluster.kubectl("delete", "namespace", *names, "--ignore-not-found", "--timeout=60s")
    ours = "--selector=app.kubernetes.io/part-of=inception-training-operator"
    cluster.kubectl("delete", "clusterroles,clusterrolebindings", ours)


# First of those with a cluster, because it removes the kind that an operator of others watches.
@pytest.mark.parametrize("story", told(INSTALL))
def test_commands_from_an_empty_cluster_to_an_empty_cluster(
    story: Story, cleared: Cluster, tmp_path: Path
) -> None:
    with fresh_namespace(cleared) as namespace:
        config = kubeconfig(cleared, namespace, tmp_path)
        Shell(tmp_path, KUBECONFIG=str(config), NAMESPACE=namespace).tell(story)


@pytest.fixture(scope="module")
def leader(
    training_api: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """An operator with the Lease that the chart makes elsewhere."""
    training_api.kubectl("apply", "--filename=-", input=json.dumps(LEASE))
    log = tmp_path_factory.mktemp("operator") / "log"
    with OperatorProcess(training_api.kubeconfig, log, lease=LEASE["metadata"]["name"]) as process:
        yield process
        process.check()
    training_api.kubectl("delete", "lease", "inception-operator", "--namespace=default")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prometheus that knows of nothing yet."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "config.yaml").write_text("{}\n", encoding="utf-8")
    program = str(components.build(["prometheus"], to_stderr)["prometheus"])
    argv = [
        *(program, f"--config.file={folder}/config.yaml", f"--storage.tsdb.path={folder}/data"),
        "--web.listen-address=127.0.0.1:0",
    ]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output)

    def port() -> str | None:
        text = log.read_text(encoding="utf-8")
        found = re.search(r'msg="?Listening on"?.* address=127\.0\.0\.1:(\d+)', text)
        return found.group(1) if found and "ready to receive web requests" in text else None

    try:
        yield f"http://127.0.0.1:{wait_for('Prometheus is ready', port, 60)}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("leader")
@pytest.mark.parametrize("story", told(CLUSTER))
def test_commands_beside_an_operator(
    story: Story, training_api: Cluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with fresh_namespace(training_api) as namespace:
        variables = {"NAMESPACE": namespace}
        variables["KUBECONFIG"] = str(kubeconfig(training_api, namespace, tmp_path))
        if "$PROMETHEUS" in repr(story):
            variables["PROMETHEUS"] = request.getfixturevalue("prometheus")
        Shell(tmp_path, **variables).tell(story)
