"""The plug-in's commands without a cluster: start, help, errors, resources, fields, completion."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from inception_operator.client import following, pod_logs, questions, recipes
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError
from inception_operator.plugin import cli, explain, resources, waiting
from inception_operator.plugin.options import Duration
from plugin_commands import Commands

ROOT = Path(__file__).resolve().parents[2]
SLOW = (
    *("kubernetes", "urllib3", "pydantic", "pydantic_core", "yaml", "rich", "kopf", "aiohttp"),
    *("inception_trainer", "tarfile", "websocket"),
)


@pytest.mark.parametrize(
    ("words", "imported"),
    [
        (["--help"], set()),
        (["list", "--help"], {"listing", "describe", "options", "output"}),
        (["version", "--client"], {"doctor", "options", "output"}),
        (["completion", "bash"], {"completion"}),
    ],
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, set) else " ".join(value),
)
def test_a_command_imports_nothing_that_is_slow_and_no_other_command(
    words: list[str], imported: set[str]
) -> None:
    code = (
        f"import sys; from inception_operator.plugin import cli; cli.main({words!r}); "
        f"print([name for name in {SLOW!r} if name in sys.modules]); "
        "plugin = 'inception_operator.plugin.'; "
        "print(*(name.removeprefix(plugin) for name in sys.modules if name.startswith(plugin)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
    )
    slow, names = answer.stdout.splitlines()[-2:]
    assert slow == "[]"
    assert set(names.split()) == {"cli", "terminal", *imported}


def test_the_wheel_has_the_commands_and_its_extra_what_they_import() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    scripts = ("kubectl-inception", "kubectl_complete-inception", "inceptionctl")
    for script in scripts:
        module, _, function = project["scripts"][script].partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    wanted = " ".join(project["optional-dependencies"]["cli"])
    for package in ("click", "kubernetes", "rich", "pydantic"):
        assert package in wanted


def test_the_commands_are_in_the_order_of_the_alphabet() -> None:
    assert list(cli.COMMANDS) == sorted(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = Commands(capsys)(name, "--help").out
    assert text.startswith("Usage: ")
    found = cli.root.get_command(click.Context(cli.root), name)
    assert found is not None
    assert found.get_short_help_str(200) == cli.COMMANDS[name][1]
    listed = Commands(capsys)("--help").out
    (line,) = [line for line in listed.splitlines() if line.startswith(f"  {name} ")]
    assert not line.endswith("...")


def test_a_command_that_does_not_exist_leads_to_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = Commands(capsys).run("descibe", "x")
    assert result.code == 2
    assert "did you mean describe?" in result.err


@pytest.mark.parametrize("current", [None, "", "other"])
def test_a_context_that_is_named_needs_no_current_one(current: str | None, tmp_path: Path) -> None:
    context = {"cluster": "c", "user": "u", "namespace": "team"}
    other = {"name": "other", "context": {**context, "namespace": "others"}}
    config = {
        "contexts": [{"name": "mine", "context": context}, other],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        **({} if current is None else {"current-context": current}),
    }
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert Cluster(str(file), "mine").namespace == "team"
    with pytest.raises(ClientError, match="no usable kubeconfig") as caught:
        _ = Cluster(str(file), "none").namespace
    assert caught.value.code == 69


@pytest.mark.parametrize(
    ("kubeconfig", "said"),
    [
        ("missing", "no usable kubeconfig (missing)"),
        ("empty", "no usable kubeconfig (empty)"),
        ("torn", "no usable kubeconfig (torn)"),
        ("elsewhere", "the API server https://127.0.0.1:1 cannot be reached"),
    ],
)
def test_a_wrong_kubeconfig_is_named(
    kubeconfig: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    Path("torn").write_text("clusters: [", encoding="utf-8")
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    elsewhere = {
        "current-context": "c",
        "contexts": [context],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    Path("elsewhere").write_text(yaml.safe_dump(elsewhere), encoding="utf-8")
    result = Commands(capsys).run("list", f"--kubeconfig={kubeconfig}")
    assert result.code == 69
    assert said in result.err
    assert "kubectl config" in result.err


NO_RIGHT = 'User "jane" cannot create resource "inceptiontrainings" in API group "x"'
DENIED = 'admission webhook "labels.example.org" denied the request'


@pytest.mark.parametrize(
    ("status", "answer", "path", "code", "said"),
    [
        (404, {}, "GET /apis/training.inception.dev/v1alpha1/x", 69, "CustomResourceDefinition"),
        (404, {"details": {"name": "j"}, "message": "no j"}, "GET /apis/x", 3, "no j"),
        (401, {"message": "Unauthorized"}, "GET /x", 77, "does not know you"),
        (403, {"message": "may not"}, "GET /x", 77, "the role edit"),
        (403, {"message": f"j is forbidden: {NO_RIGHT}"}, "POST /x", 77, "the role edit"),
        (403, {}, "POST /x", 77, "the role edit"),
        (403, {"message": "exceeded quota: q"}, "POST /x", 1, "exceeded quota: q"),
        (403, {"message": f"{DENIED}: no team"}, "POST /x", 1, f"{DENIED}: no team"),
        (403, {"message": f"{DENIED}: no exec"}, "exec in p", 1, f"{DENIED}: no exec"),
        (500, {"message": "etcd"}, "GET /x", 69, "etcd"),
        (422, {"message": "spec.a: no\x1b[2J"}, "POST /x", 1, "spec.a: no"),
    ],
)
def test_a_refusal_names_the_remedy(
    status: int, answer: dict[str, Any], path: str, code: int, said: str
) -> None:
    with pytest.raises(ClientError) as caught:
        questions.refuse(status, answer, b"<html>", path)
    assert caught.value.code == code
    assert said in str(caught.value)
    assert ("administrator" in str(caught.value)) == (status == 403 and code == 77)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.1", "0.1"),
        ("1e-4", "1e-4"),
        ("true", True),
        ("FP16", "FP16"),
        ("", ""),
        ('"1"', "1"),
        ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
    ],
)
def test_values_are_what_the_api_wants(text: str, value: object) -> None:
    assert resources.value(text) == value


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ("claim", {"volumeClaimName": "claim"}),
        ("/data/out", {"path": "/data/out"}),
        ("s3://bucket/x", {"uri": "s3://bucket/x"}),
    ],
)
def test_checkpoints_go_to_a_claim_a_path_or_a_store(place: str, field: dict[str, str]) -> None:
    assert resources.checkpoint(place) == field


@pytest.mark.parametrize(
    "wish",
    [
        {"settings": ["epochs"]},
        {"settings": ["=3"]},
        {"settings": ["a..b=3"]},
        {"settings": ["epochs=3", "epochs.x=4"]},
        {"settings": ['epochs="']},
        {"settings": ["spec=5"]},
        {"settings": ["spec.template.spec=5"]},
        {"environment": ["A"]},
        {"mounts": ["claim"]},
        {"mounts": ["claim:relative"]},
        {},
    ],
    ids=str,
)
def test_an_option_that_cannot_be_read_is_a_wrong_usage(wish: dict[str, Any]) -> None:
    recipe = {"recipe": "r"} if wish else {}
    with pytest.raises(ClientError) as caught:
        resources.build(resources.Wish("x", **recipe, **wish))
    assert caught.value.code == 2


def test_a_number_of_ranks_is_of_digits_that_the_api_has() -> None:
    made = resources.build(resources.Wish("x", recipe="r", processes="²"))
    assert made["spec"]["numProcPerNode"] == "²"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("2h30m", 9000), ("1d", 86400)]
)
def test_spans_of_time_are_read(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


SCHEMA = {
    "properties": {
        "spec": {
            "properties": {
                "training": {
                    "properties": {
                        "epochs": {"type": "integer", "minimum": 1, "description": "How often."}
                    }
                },
                "rules": {"type": "array", "items": {"properties": {"name": {"type": "string"}}}},
            }
        }
    }
}


def test_a_field_is_found_with_or_without_what_is_above_it() -> None:
    short, whole = explain.page(SCHEMA, "epochs"), explain.page(SCHEMA, "spec.training.epochs")
    assert short == whole == "spec.training.epochs <integer>\n  How often.\n  at least: 1"
    assert "name <string>" in explain.page(SCHEMA, "rules")
    with pytest.raises(ClientError, match="did you mean epochs"):
        explain.page(SCHEMA, "epoch")


def test_recipes_are_those_of_the_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    from inception_trainer import recipes as of_trainer

    assert recipes.names() == of_trainer.names()
    listed = Commands(capsys)("recipes").out
    for name in of_trainer.names():
        assert f"{name} " in listed
        assert recipes.summary(name) == of_trainer.summary(name)
    shown = Commands(capsys)("recipes", "bninception-digits", "-o", "json").json
    assert shown == of_trainer.read("bninception-digits")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["des"], "describe\tShow all about a job on one page."),
        (["run", "--rec"], "--recipe\tA preset; `recipes` lists them."),
        (["list", "-o", "y"], "yaml"),
    ],
)
def test_kubectl_is_told_what_to_complete(
    words: list[str], completed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.complete(words) == 0
    assert capsys.readouterr().out == f"{completed}\n:4\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "_INCEPTIONCTL_COMPLETE" in Commands(capsys)("completion", shell).out


def test_a_package_that_is_missing_is_named_with_the_way_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError('no', name='click')")
    answer = subprocess.run(
        [sys.executable, "-m", "inception_operator.plugin.entry", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'operator'}"},
    )
    assert answer.returncode == 1
    assert "inception-training-operator[cli]" in answer.stderr


FOREIGN = ROOT / "tests" / "support" / "foreign_manifests" / "pytorchjob-cpu-pair.yaml"


def entry(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own."""
    paths = os.pathsep.join((str(ROOT / "operator"), str(ROOT / "trainer")))
    environment = {"PYTHONPATH": paths, **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "inception_operator.plugin.entry", *words],
        check=False,
        env={**os.environ, **environment},
        **{"stderr": subprocess.PIPE, **options},
    )


@pytest.mark.parametrize(
    "words", [("--help",), ("recipes",), ("convert", str(FOREIGN))], ids=lambda words: words[0]
)
def test_who_has_read_enough_is_no_failure(words: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        # Standard error too, as after 2>&1.
        ended = entry(*words, stdout=write)
        assert (ended.returncode, ended.stderr.decode().count("Error")) == (0, 0)
        assert entry(*words, stdout=write, stderr=write).returncode == 0
    finally:
        os.close(write)


def test_what_the_locale_does_not_have_is_left_out_and_no_error() -> None:
    western = {"PYTHONIOENCODING": "latin-1:strict", "PYTHONUTF8": "0"}
    shown = entry("run", "--help", stdout=subprocess.PIPE, env=western)
    assert (shown.returncode, b"cambricon ?" in shown.stdout) == (0, True), shown
    # A file is in UTF-8 all the same.
    text = FOREIGN.read_text(encoding="utf-8").replace(
        "metadata:", "metadata:\n  labels: {a: é}", 1
    )
    made = entry("convert", "-", stdout=subprocess.PIPE, env=western, input=text.encode())
    assert made.returncode == 0, made
    yaml.safe_load(made.stdout.decode())


def test_who_hears_a_log_ends_the_following() -> None:
    class Running(Cluster):
        def job(self, name: str) -> dict[str, Any]:
            return {"metadata": {"name": name}}

        def pods(self, name: str) -> list[dict[str, Any]]:
            return [{"metadata": {"name": name, "uid": "u"}, "status": {"phase": "Running"}}]

        def lines(self, *_: Any, **__: Any) -> Any:
            return iter((b"2026-01-01T00:00:01Z a line",))

    def gone(_line: object) -> None:
        raise BrokenPipeError

    heard = pod_logs.Hearers(gone, lambda *_: None)
    with pytest.raises(BrokenPipeError):
        pod_logs.Follower(Running(chosen_namespace="team"), "x", pod_logs.Reading(), heard).run(60)


def test_progress_that_is_drawn_over_fits_into_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    line = waiting._Line()
    line({"metadata": {}, "status": {"state": "Running", "trainerStatus": {"step": 10**30}}})
    assert capsys.readouterr().out == "\rRunning  step 10000\x1b[K"


def test_an_api_server_that_is_away_is_waited_for_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away(Cluster):
        asked = 0

        def job(self, name: str) -> dict[str, Any]:
            self.asked += 1
            if self.asked > 1:
                raise ClientError("away", code=69)
            return {"metadata": {"name": name, "uid": "u"}}

        def lines(self, *_: Any, **__: Any) -> Any:
            return iter(())

    monkeypatch.setattr(following, "_PAUSE", 0.0)
    monkeypatch.setattr(following, "_PATIENCE", 0.01)
    cluster = Away(chosen_namespace="team")
    with pytest.raises(ClientError, match="away"):
        list(following.changes(cluster, "x"))
    assert cluster.asked > 2


def test_jobs_of_other_operators_are_converted(capsys: pytest.CaptureFixture[str]) -> None:
    file = ROOT / "tests" / "support" / "foreign_manifests" / "pytorchjob-cpu-pair.yaml"
    made = yaml.safe_load(Commands(capsys)("convert", str(file)).out)
    assert made["kind"] == "InceptionTraining"
    refused = Commands(capsys).run("convert", str(ROOT / "manifests" / "crd.yaml"))
    assert (refused.code, refused.out) == (1, "")
    assert "nothing was convertible" in refused.err
