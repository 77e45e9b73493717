"""``explain`` and ``--help``: every key of the configuration, with what its class says of it."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from docs.pages import ROOT
from inception_trainer import cli
from inception_trainer.config.declare import camel
from inception_trainer.config.explain import explain
from inception_trainer.config.schema import without_none
from inception_trainer.config.training import TrainingConfig
from inception_trainer.errors import UsageError


def keys(kind: type[Any] = TrainingConfig, path: str = "") -> Iterator[tuple[str, bool]]:
    """Every dotted path below a section, and whether it is a section itself."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if not field.metadata.get("in_file", True):
            continue
        hint = without_none(hints[field.name])
        below = f"{path}{camel(field.name)}"
        yield below, dataclasses.is_dataclass(hint)
        if dataclasses.is_dataclass(hint):
            yield from keys(typing.cast("type[Any]", hint), f"{below}.")


def words(text: str) -> str:
    return " ".join(text.split())


def of_api() -> Iterator[tuple[str, str]]:
    """Path and description of everything below spec.training in the CRD."""
    crd = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8"))
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    yield from _described("", spec["properties"]["training"])


def _described(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, below in schema.get("properties", {}).items():
        full = f"{path}.{name}".strip(".")
        yield full, below["description"]
        yield from _described(full, below)


def test_every_key_and_section_is_explained() -> None:
    whole = explain()
    for path, is_section in keys():
        assert f"\n{path}  <{'section' if is_section else ''}" in f"\n{whole}", path
        assert explain(path).strip().startswith(f"{path}  <"), path
        assert explain(path).strip() in whole


def test_the_words_are_those_of_kubectl_explain() -> None:
    said = dict(of_api())
    assert len(said) > 80
    for path, description in said.items():
        assert words(description) in words(explain(path)), path


def test_type_default_and_bounds_of_keys() -> None:
    first_lines = {
        path: explain(path).strip().splitlines()[0]
        for path in (
            "optimizer.momentum",
            "optimizer.nesterov",
            "optimizer.name",
            "schedule.milestones",
            "export.formats",
            "model.name",
            "epochs",
            "checkpoint.everySeconds",
            "augmentation.randAugment.magnitude",
        )
    }
    assert list(first_lines.values()) == [
        "optimizer.momentum  <decimal>  default 0.9; at least 0; less than 1",
        "optimizer.nesterov  <true or false>  default false",
        first_lines["optimizer.name"],
        "schedule.milestones  <list of whole numbers>  default none; at least 0; "
        "in the cluster at most 100000",
        "export.formats  <list of texts>  default [PT2]; "
        "one of PT2, ONNX, TorchScript, Safetensors",
        "model.name  <text>  default bninception",
        "epochs  <whole number>  default none; at least 1; in the cluster at most 100000",
        "checkpoint.everySeconds  <decimal>  default 60; at least 0",
        "augmentation.randAugment.magnitude  <whole number>  default none; at least 1; at most 10",
    ]
    assert first_lines["optimizer.name"].startswith(
        "optimizer.name  <text>  default SGD; one of SGD"
    )


def test_a_section_is_explained_with_its_keys_and_no_others() -> None:
    text = explain("weightAverage")
    assert "WeightAverage is a running average" in text
    assert "weightAverage.decay  <decimal>" in text
    assert "weightAverage.everySteps  <whole number>" in text
    assert "optimizer." not in text
    assert explain("spec.training.weightAverage") == text


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("optimizer.momentun", "optimizer.momentum"),
        ("optimiser", "optimizer"),
        ("momentum", "optimizer.momentum"),
        ("weight", "lists all of them"),
    ],
)
def test_a_key_that_does_not_exist_names_the_nearest(path, hint, capsys) -> None:
    with pytest.raises(UsageError, match=re.escape(hint)):
        explain(path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["explain", path])
    assert ended.value.code == 64
    assert f"there is no key {path}" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_every_mode_shows_every_key(command, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--set KEY=VALUE" in shown
    assert explain() in shown


def test_the_command_prints_a_key(capsys) -> None:
    assert cli.main(["explain", "schedule.gamma"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("schedule.gamma  <decimal>  default 0.1; greater than 0; at most 1\n")
    assert cli.main(["explain"]) == 0
    assert capsys.readouterr().out.strip() == explain().strip()


def test_help_of_the_program_names_the_command(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "explain" in capsys.readouterr().out
