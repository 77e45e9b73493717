"""``average``: the mean of weight files is a weight file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import trainer_ranks
from inception_trainer import cli, models
from inception_trainer.config.training import merge
from inception_trainer.weights.average import mean, write_mean
from inception_trainer.weights.load import OWN_LAYOUT, open_weights
from trainer_ranks import TINY

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("small_bninception")]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[Path]:
    """Those of steps 4, 8 and 12 of one training."""
    path = tmp_path_factory.mktemp("trained")
    job = merge(
        TINY, {"checkpoint": {"path": str(path), "everySteps": 4, "everySeconds": 1000, "keep": 9}}
    )
    assert trainer_ranks.run(path, job) == [0]
    return [path / "checkpoints" / f"step-{step:09d}.pt" for step in (4, 8, 12)]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_mean_of_checkpoints_is_evaluated_like_a_checkpoint(
    checkpoints, tmp_path, suffix, capsys
) -> None:
    output = tmp_path / f"mean{suffix}"
    assert cli.main(["average", *map(str, checkpoints), "--output", str(output)]) == 0
    assert "mean of 3 files of bninception, 4 classes" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    states = [open_weights(None, path).state for path in checkpoints]
    found = open_weights(None, output).state
    key = "last_linear.weight"
    torch.testing.assert_close(
        found[key], sum(state[key] for state in states) / 3, atol=1e-6, rtol=1e-6
    )
    assert not torch.equal(found[key], states[-1][key])
    counter = "conv1_7x7_s2_bn.num_batches_tracked"
    assert torch.equal(found[counter], states[-1][counter])
    if suffix == ".pt":
        read = open_weights("bninception", output)
        assert (read.source.layout, read.content["progress"]["step"]) == (OWN_LAYOUT, 12)
        job = {
            "mode": "Evaluate",
            "model": {"weights": str(output)},
            "output": {"path": str(tmp_path)},
        }
        assert trainer_ranks.run(tmp_path, merge(TINY, job)) == [0]
        assert json.loads((tmp_path / "evaluate" / "summary.json").read_text())["samples"] == 12
    else:
        with safe_open(output, "pt") as file:
            assert json.loads(file.metadata()["averaged"]) == [str(path) for path in checkpoints]
            assert json.loads(file.metadata()["class_names"]) == [f"class-{i}" for i in range(4)]


def test_the_sum_does_not_round() -> None:
    values = [torch.full((1,), value, dtype=torch.float16) for value in (60000.0, 60000.0, 30048.0)]
    assert mean([{"w": value} for value in values], {"w": values[0]})["w"].item() == 50016, (
        "their sum is beyond what FP16 holds"
    )


def test_plain_weights_have_a_mean_too(tmp_path) -> None:
    for number in (1, 2):
        torch.save(models.create("resnet50", 3).state_dict(), tmp_path / f"{number}.pth")
    write_mean([tmp_path / "1.pth", tmp_path / "2.pth"], tmp_path / "mean.pt")
    assert open_weights("resnet50", tmp_path / "mean.pt").source.layout == "torchvision"


@pytest.mark.parametrize(
    ("files", "output", "code", "words"),
    [
        (["4"], "mean.pt", 64, "at least 2 files"),
        (["4", "8"], "mean.bin", 64, "ends in .pt or .safetensors"),
        (["4", "8"], "there.pt", 64, "is there already"),
        (["4", "/nowhere.pt"], "mean.pt", 66, "no file /nowhere.pt"),
        (["4", "other"], "mean.pt", 78, "hold bninception and resnet50"),
        (["4", "wider"], "mean.pt", 78, "differ in 2 tensors, for example last_linear.bias"),
        (["4", "plain"], "mean.pt", 78, "differ in preprocessing"),
        (["4", "8"], "no/folder/mean.pt", 66, "cannot be written"),
    ],
    ids=["one", "suffix", "there", "missing", "network", "classes", "preprocessing", "folder"],
)
def test_what_is_refused(checkpoints, tmp_path, files, output, code, words, capsys) -> None:
    (tmp_path / "there.pt").touch()
    named = {"4": checkpoints[0], "8": checkpoints[1]}
    for name, model, classes in (
        ("other", "resnet50", 4),
        ("wider", "bninception", 5),
        ("plain", "bninception", 4),
    ):
        named[name] = tmp_path / f"{name}.pth"
        torch.save(models.create(model, classes).state_dict(), named[name])
    paths = [str(named.get(name, name)) for name in files]
    with pytest.raises(SystemExit) as caught:
        cli.main(["average", *paths, "--output", str(tmp_path / output)])
    assert caught.value.code == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "mean.pt").exists()
