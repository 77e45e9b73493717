"""Programs of others: those of the samples, and a launcher installed as by the init container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from inception_trainer.launcher.install import install

SAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "samples"


def documents(sample: str) -> dict[str, Any]:
    """The objects of a sample by kind."""
    text = (SAMPLES / f"{sample}.yaml").read_text(encoding="utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def script(sample: str, folder: Path) -> Path:
    """Write the program of a sample's ConfigMap into a folder, as its volume does."""
    path = folder / "train.py"
    path.write_text(documents(sample)["ConfigMap"]["data"]["train.py"], encoding="utf-8")
    return path


def words(sample: str, program: Path, checkpoint: Path) -> list[str]:
    """The sample's command line, with the places of this machine."""
    (container,) = documents(sample)["InceptionTraining"]["spec"]["template"]["spec"]["containers"]
    given = [*container["command"], *container["args"]]
    places = {"/program/train.py": str(program), "$(INCEPTION_CHECKPOINT_PATH)": str(checkpoint)}
    for place, here in places.items():
        given = [word.replace(place, here) for word in given]
    return given


def installed(folder: Path) -> Path:
    """A launcher as a container of another image finds it."""
    install(folder)
    return folder
