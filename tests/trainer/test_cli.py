"""The command line: exit codes, and how much is imported to find a mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inception_trainer import cli, entry
from inception_trainer.config.settings import from_environment
from inception_trainer.errors import ConfigError, UsageError

TRAINER = Path(cli.__file__).parents[1]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TRAINER), **variables}
    command = [sys.executable, "-m", "inception_trainer", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "command"),
        (["fly"], 64, "fly"),
        (["train", "--fast"], 64, "--fast"),
        (["train"], 78, "recipe=NAME"),
        (["train", "/nowhere/job.yaml"], 66, "/nowhere/job.yaml"),
        (["train", "--set", "recipe=resnet"], 78, "bninception-digits"),
        (["train", "--set", "epochs"], 78, "key=value"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(arguments, code, words, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == code
    output = capsys.readouterr()
    assert words in output.err
    assert "Traceback" not in output.err


def test_mistakes_are_found_without_torch() -> None:
    code = (
        "import sys; from inception_trainer import cli\ntry: cli.main(['train', '--set', "
        "'recipe=none'])\n"
    )
    code += "except SystemExit as e: print(e.code, 'torch' in sys.modules, 'numpy' in sys.modules)"
    environment = {"PYTHONPATH": str(TRAINER)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["78", "False", "False"]


def test_the_launcher_starts_without_the_trainers_packages() -> None:
    code = "import sys; from inception_trainer import cli\n"
    code += "try: cli.main(['launch', '--help'])\n"
    code += (
        "except SystemExit: print(sorted({'yaml', 'torch', 'inception_trainer.config.training'} "
        "& sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(TRAINER)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "--termination-log" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_command_decides_the_mode(command, tmp_path, monkeypatch) -> None:
    (tmp_path / "job.yaml").write_text(
        "{mode: Benchmark, data: {kind: Digits}, output: {path: /out}}"
    )
    modes = []
    monkeypatch.setattr(
        entry, "run_as_process", lambda config, _settings: modes.append(config.mode)
    )
    assert cli.main([command, str(tmp_path / "job.yaml")]) == 0
    assert modes == [command.capitalize()]


def test_two_ranks_with_one_device_are_a_mistake_of_the_job(monkeypatch) -> None:
    """NCCL's words, where a device plug-in hands out shares of a GPU as if they were devices."""
    same = "ncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000"
    for words, expected in ((same, ConfigError), ("ncclInvalidUsage", RuntimeError)):

        def work(_config: object, _settings: object, words: str = words) -> None:
            raise RuntimeError(f"NCCL error in: init.cpp:1, invalid usage\n{words}")

        monkeypatch.setattr(entry, "_work", work)
        with pytest.raises(expected) as caught:
            entry._run(None, None)  # type: ignore[arg-type]
        assert words in str(caught.value)


def test_recipes(capsys) -> None:
    assert cli.main(["recipes"]) == 0
    assert "bninception-imagenet" in capsys.readouterr().out


def test_error_file_for_torch_elastic(tmp_path) -> None:
    done = run("train", INCEPTION_CONFIG="{}", TORCHELASTIC_ERROR_FILE=str(tmp_path / "error.json"))
    assert done.returncode == 78
    message = json.loads((tmp_path / "error.json").read_text())["message"]
    assert message["message"].startswith("ConfigError: data.kind: missing")
    assert message["extraInfo"]["exitCode"] == 78


@pytest.mark.timeout(150)
def test_a_whole_run_from_a_file(tmp_path) -> None:
    (tmp_path / "job.yaml").write_text(
        "data: {kind: Digits}\nbatch: {global: 16}\nmaxSteps: 2\nepochs: 1\nprecision: FP32\n"
        f"checkpoint: {{path: {tmp_path}}}\n"
    )
    done = run("train", str(tmp_path / "job.yaml"), "--set", "seed=3", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "Completed after 2 steps" in done.stdout
    summary = json.loads((tmp_path / "output" / "summary.json").read_text())
    assert (summary["steps"], summary["samplesSeen"], summary["seed"]) == (2, 32, 3)


@pytest.mark.parametrize("source", ["file", "INCEPTION_CONFIG"])
def test_the_variable_names_the_folder_of_images(source, tmp_path, monkeypatch) -> None:
    content = json.dumps({"data": {"kind": "ImageFolder"}})
    (tmp_path / "job.yaml").write_text(content)
    monkeypatch.setenv("INCEPTION_CONFIG", content)
    monkeypatch.setenv("IMAGENET_TRAIN_DATASET", "/images")
    paths = []
    monkeypatch.setattr(
        entry, "run_as_process", lambda config, _settings: paths.append(config.data.path)
    )
    file = [str(tmp_path / "job.yaml")] if source == "file" else []
    cli.main(["train", *file])
    cli.main(["train", *file, "--set", "data.path=/own"])
    assert paths == ["/images", "/own"]


def test_the_launchers_ranks_know_the_variable(monkeypatch) -> None:
    monkeypatch.setenv("INCEPTION_CONFIG", json.dumps({"recipe": "bninception-imagenet"}))
    monkeypatch.setenv("IMAGENET_TRAIN_DATASET", "/images")
    paths = []
    monkeypatch.setattr(entry, "_work", lambda config, _settings: paths.append(config.data.path))
    entry.train()
    assert paths == ["/images"]


@pytest.mark.parametrize(
    ("path", "named"), [(None, True), ("/nowhere/own", False)], ids=["variable", "own"]
)
def test_missing_images_are_said_with_the_variable_that_names_them(path, named) -> None:
    own = ["--set", f"data.path={path}"] if path else []
    done = run(
        "train", "--set", "data.kind=ImageFolder", *own, IMAGENET_TRAIN_DATASET="/nowhere/images"
    )
    assert done.returncode == 66
    assert f"InputMissing: data.path: no folder {path or '/nowhere/images'}" in done.stderr
    assert ("the variable IMAGENET_TRAIN_DATASET names this folder" in done.stderr) == named


def test_settings_are_read_once_from_the_contract() -> None:
    settings = from_environment(
        {
            "INCEPTION_ATTEMPT": "3",
            "RANK": "5",
            "WORLD_SIZE": "8",
            "LOCAL_RANK": "1",
            "LOCAL_WORLD_SIZE": "4",
        }
    )
    assert (settings.attempt, settings.rank, settings.world_size, settings.local_world_size) == (
        3,
        5,
        8,
        4,
    )
    assert settings.metrics_port == 0
    with pytest.raises(UsageError, match="RANK='x'"):
        from_environment({"RANK": "x"})


def test_entry_without_configuration(monkeypatch) -> None:
    monkeypatch.delenv("INCEPTION_CONFIG", raising=False)
    with pytest.raises(Exception, match="INCEPTION_CONFIG: not set") as caught:
        entry.train()
    assert caught.value.exit_code == 78
