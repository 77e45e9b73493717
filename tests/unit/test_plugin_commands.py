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

from inception_operator.client import following, questions, recipes
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError
from inception_operator.plugin import cli, explain, resources
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


@pytest.mark.parametrize(
    ("status", "answer", "path", "code", "said"),
    [
        (404, {}, "GET /apis/training.inception.dev/v1alpha1/x", 69, "CustomResourceDefinition"),
        (404, {"details": {"name": "j"}, "message": "no j"}, "GET /apis/x", 3, "no j"),
        (401, {"message": "Unauthorized"}, "GET /x", 77, "does not know you"),
        (403, {"message": "may not"}, "GET /x", 77, "the role edit"),
        (403, {"message": "exceeded quota: q"}, "POST /x", 1, "exceeded quota: q"),
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
