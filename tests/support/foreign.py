"""Jobs of other operators, written for the tests in the shapes that their users publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from inception_operator.plugin.convert.__main__ import render
from inception_operator.plugin.convert.join import Conversion

FOLDER = Path(__file__).with_name("foreign_manifests")
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
REFUSED = sorted(path.stem for path in (FOLDER / "refused").glob("*.yaml"))


def read(name: str) -> list[Any]:
    """The documents of a file, each read anew."""
    documents = yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    # What YAML lets two places share, each has for itself then.
    return [json.loads(json.dumps(each)) for each in documents]


def page(made: Conversion) -> str:
    """What a user gets to see of a conversion: the resources, and below them the notes."""
    notes = "".join(f"# {note}\n" for note in made.notes)
    return f"---\n{render(made.resources, 'yaml')}{notes}"


def expected(name: str) -> str:
    """The page that was read and found right."""
    return (FOLDER / "expected" / f"{name}.txt").read_text(encoding="utf-8")
