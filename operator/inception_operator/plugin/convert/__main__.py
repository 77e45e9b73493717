"""``python -m inception_operator.plugin.convert FILE…``: documents in, InceptionTrainings out.

What could not be carried over is said on stderr. Exit code 1: nothing was convertible; 2: a file
could not be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from .join import Conversion, convert


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert the files, or stdin without one."""
    parser = argparse.ArgumentParser(
        prog="python -m inception_operator.plugin.convert",
        description="Make InceptionTrainings of PyTorchJobs, TrainJobs, MPIJobs, Volcano Jobs and "
        "JobSets.",
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="YAML or JSON; - is stdin")
    parser.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml")
    options = parser.parse_args(arguments)
    try:
        documents = [each for file in options.files or ["-"] for each in _load(file)]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    made = convert(documents)
    if made.trainings:
        # UTF-8 in any locale, as kubectl reads it.
        sys.stdout.flush()
        sys.stdout.buffer.write(render(made.resources, options.output).encode())
    _tell(made)
    return 0 if made.trainings else 1


def _load(file: str) -> Iterable[Any]:
    # In the encoding of YAML, whatever the locale says.
    found = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    return list(yaml.safe_load_all(found))


def render(resources: Sequence[Any], form: str) -> str:
    """The resources as a file that ``kubectl apply -f`` takes."""
    if form == "json":
        items = {"apiVersion": "v1", "kind": "List", "items": list(resources)}
        return json.dumps(resources[0] if len(resources) == 1 else items, indent=2) + "\n"
    return yaml.dump_all(resources, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: no anchors, lists indented, scripts in lines."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write out what appears twice."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists below their key."""
        super().increase_indent(flow, False)


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _tell(made: Conversion) -> None:
    for note in made.notes:
        print(note, file=sys.stderr)
    if not made.trainings:
        print("error: nothing was convertible", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
