"""Brings the generated files of the chart and the plain manifests up to date.

With ``--check`` it only says which of them drifted. Helm reads no file outside a chart, so the
chart carries copies of the CRD, of the dashboards and of the rules for Prometheus. The JSON schema
of a row of the accelerator table is made from the operator's model, for the file beside the rows
and for the schema of the chart's values, which also gets the types of Kubernetes that it names. The
table in the chart's README is made from the comments of values.yaml; manifests/install.yaml and
manifests/kustomize from the rendered chart.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from charts import kubernetes_types, kustomize
from charts.plain import (
    CHART,
    CRD,
    ROOT,
    SyncError,
    crd_text,
    dump,
    namespace_object,
    plain_objects,
)
from inception_operator.accelerators import profile
from inception_operator.accelerators.resolve import DIRECTORY as PROFILES

INSTALL = ROOT / "manifests" / "install.yaml"
KUSTOMIZE = ROOT / "manifests" / "kustomize"
README = CHART / "README.md"
VALUES_SCHEMA = CHART / "values.schema.json"
ROW_SCHEMA = PROFILES / "schema.json"
DASHBOARDS = ROOT / "monitoring" / "dashboards"
RULES = ROOT / "monitoring" / "rules"
TABLE_START, TABLE_END = "<!-- values: made by charts/sync.py -->", "<!-- end of values -->"
_COMMENT, _KEY = re.compile(r"^(\s*)# -- (.+)$"), re.compile(r"^(\s*)([A-Za-z]+):(.*)$")


def main(arguments: list[str] | None = None) -> int:
    """Write what is out of date, or with ``--check`` only name it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, fail when a file is out of date"
    )
    parser.add_argument(
        "--helm", default=os.environ.get("HELM") or shutil.which("helm"), help="path of helm"
    )
    options = parser.parse_args(arguments)
    try:
        stale = sync(options.helm, write=not options.check)
    except SyncError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in stale:
        print(f"{'out of date' if options.check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if stale and options.check else 0


def sync(helm: str | None, *, write: bool) -> list[Path]:
    """The files that were out of date; ``write`` brings them up to date.

    Raises SyncError without helm, which renders the manifests.
    """
    stale = _update(copies(), write=write)
    stale += _update({README: readme()}, write=write)
    if not helm:
        raise SyncError(
            "install.yaml is made with helm: give --helm PATH or the environment variable HELM"
        )
    rendered = {INSTALL: install_manifest(helm)} | kustomize.texts(helm, KUSTOMIZE)
    return stale + _update(rendered, write=write)


def copies() -> dict[Path, str]:
    """The texts of all files but README and install.yaml, by path: copies, and the two schemas."""
    texts = {CHART / "files" / "crd.yaml": CRD.read_text(encoding="utf-8")}
    for source in sorted(DASHBOARDS.glob("*.json")):
        texts[CHART / "files" / "dashboards" / source.name] = source.read_text(encoding="utf-8")
    for source in sorted(RULES.glob("*.yaml")):
        texts[CHART / "files" / "rules" / source.name] = source.read_text(encoding="utf-8")
    texts[ROW_SCHEMA] = json.dumps(profile.json_schema(), indent=2) + "\n"
    texts[VALUES_SCHEMA] = values_schema()
    return texts


def values_schema() -> str:
    """The schema of the chart's values with the present rules for rows of the accelerator table.

    Rows are in a mapping there, with their names as its keys. The unit has to be said: the chart
    cannot know that a forgotten one means 1.
    """
    values = json.loads(VALUES_SCHEMA.read_text(encoding="utf-8"))
    row = profile.json_schema()
    del row["properties"]["name"]
    definition = {
        "type": "object",
        "additionalProperties": False,
        "required": [*(key for key in row["required"] if key != "name"), "unit"],
        "properties": row["properties"],
    }
    kubernetes = re.findall(
        rf'"#/\$defs/({kubernetes_types.PREFIX}\w+)"', json.dumps(values["properties"])
    )
    definitions = values["$defs"] | row["$defs"] | {"profile": definition}
    definitions |= kubernetes_types.definitions(kubernetes)
    values["properties"]["profiles"] = {
        "type": "object",
        "additionalProperties": {"$ref": "#/$defs/profile"},
    }
    # Types that a row had in an earlier version would stay for ever otherwise.
    text = json.dumps([values["properties"], definitions])
    references = set(re.findall(r'"#/\$defs/(\w+)"', text))
    values["$defs"] = {name: definitions[name] for name in definitions if name in references}
    return json.dumps(values, indent=2) + "\n"


def _update(texts: Mapping[Path, str], *, write: bool) -> list[Path]:
    stale = [
        path
        for path, text in texts.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if write:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
    return stale


def values_rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Key, default and description of every commented key of a values.yaml, in its order."""
    values = yaml.safe_load(text)
    stack: list[tuple[int, str]] = []
    comment: str | None = None
    for line in text.splitlines():
        if match := _COMMENT.match(line):
            comment = match[2]
        elif match := _KEY.match(line):
            stack = [entry for entry in stack if entry[0] < len(match[1])]
            stack.append((len(match[1]), match[2]))
            if comment is not None:
                path = [key for _, key in stack]
                yield ".".join(path), _default(values, path), comment
            comment = None


def _default(values: Any, path: list[str]) -> str:
    for key in path:
        values = values[key]
    if isinstance(values, dict | list):
        return yaml.safe_dump(
            values, default_flow_style=True, width=10_000, sort_keys=False
        ).strip()
    return yaml.safe_dump(values).removesuffix("...\n").strip()


def readme() -> str:
    """The chart's README with its table of values made anew."""
    head, start, rest = README.read_text(encoding="utf-8").partition(TABLE_START)
    _, end, tail = rest.partition(TABLE_END)
    if not start or not end:
        raise SyncError(
            f"{README.relative_to(ROOT)} must hold the lines {TABLE_START} and {TABLE_END}"
        )
    rows = values_rows((CHART / "values.yaml").read_text(encoding="utf-8"))
    table = "".join(f"| `{key}` | `{default}` | {text} |\n" for key, default, text in rows)
    return f"{head}{start}\n\n| Key | Default | Meaning |\n|---|---|---|\n{table}\n{end}{tail}"


def install_manifest(helm: str) -> str:
    """The text of manifests/install.yaml: namespace, CRD and the rendered chart."""
    parts = [dump(namespace_object()), crd_text(), *map(dump, plain_objects(helm))]
    return (
        "# Made from the chart by charts/sync.py: kubectl apply --server-side -f install.yaml\n"
        + "---\n".join(parts)
    )


if __name__ == "__main__":
    sys.exit(main())
