"""Every command of the documents runs in a test, or is on a list that says why it does not; those
of our own programs are understood by them.
"""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import docs_commands
from docs_commands import ROOT, Command, NotUnderstoodError, understand
from docs_excuses import EXCUSED
from docs_table import STORIES, Run

COMMANDS = docs_commands.commands()
RUN = {step.command for story in STORIES for step in story.steps if isinstance(step, Run)}
NOT_RUN = {command for commands in EXCUSED.values() for command in commands}
MEASURING = "benchmarks"
CRD = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8"))
(VERSION,) = CRD["spec"]["versions"]
PARSE_ONLY = ROOT / "tests" / "support" / "parse_only"
RECIPES = {
    " ".join(row["command"].split())
    for system in yaml.safe_load((ROOT / "docs/recipes.yaml").read_text("utf-8"))["systems"]
    for row in system["rows"]
    if "command" in row
}
"""Run by tests/trainer/test_recipe_rows.py."""


def is_benchmark(text: str) -> bool:
    return f"-m {MEASURING}." in text or f"python {MEASURING}/" in text


def places(commands: list[Command]) -> str:
    return "\n".join(f"{command.place}: {command.text}" for command in commands)


EXAMPLE = """
Run `make test`, see `helm upgrade`, then `kubectl inception list -A`.

```bash
kubectl get pods \\
  -A            # all of them
```

```console
$ kubectl get nodes
NAME   STATUS
```

```text
make nothing
```

    make it unsaid
"""


def test_commands_are_found_in_blocks_and_in_the_text(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(EXAMPLE, encoding="utf-8")
    found = list(docs_commands.of_page(page, "page.md"))
    assert [(command.text, command.in_block) for command in found] == [
        ("make test", False),
        ("kubectl inception list -A", False),
        ("kubectl get pods -A", True),
        ("kubectl get nodes", True),
    ]
    assert found[-1].output == ("NAME   STATUS",)
    assert docs_commands.unlabelled(page) == [18]


@pytest.mark.parametrize("page", docs_commands.PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_holds(page: Path) -> None:
    assert docs_commands.unlabelled(page) == [], "begin it with ```bash, ```console, ```text, …"


def test_every_command_in_a_block_is_run_or_excused() -> None:
    left = [c for c in COMMANDS if c.in_block and c.text not in RUN | NOT_RUN]
    assert left == [], (
        f"add them to tests/support/docs_table.py, or to docs_excuses.py:\n{places(left)}"
    )


def test_every_other_command_is_run_excused_or_understood() -> None:
    left = [
        command
        for command in COMMANDS
        if command.text not in RUN | NOT_RUN | RECIPES
        and not is_benchmark(command.text)
        and not understand(command.text)
    ]
    assert left == [], (
        f"add them to tests/support/docs_table.py, or to docs_excuses.py:\n{places(left)}"
    )


def test_what_is_run_or_excused_is_in_a_document() -> None:
    assert {command.text for command in COMMANDS} >= RUN | NOT_RUN
    assert not RUN & NOT_RUN


@pytest.mark.parametrize("text", sorted({command.text for command in COMMANDS} - RECIPES))
def test_our_programs_take_what_the_documents_say(text: str) -> None:
    understand(text)


@pytest.mark.parametrize(
    "text",
    [
        "make demos",
        "kubectl inception runs digits",
        "kubectl inception run digits --recipes x",
        "inceptionctl local run job.yaml --epochs 1",
        "kubectl get pods | kubectl inception convert --to json",
        "inception-trainer trains job.yaml",
        "inception-trainer train --set epoch=3",
        "inception-trainer train --set recipe=bninception-digit",
        "torchrun --nproc-per-node 4 -m inception_trainer train --set epochs=-1",
        "python -m localcluster up --devices cambricon.com/mlu=4",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(text: str) -> None:
    with pytest.raises(NotUnderstoodError):
        understand(text)


def shown(text: str) -> list[str]:
    """What the documents show of the output of a command."""
    return [textwrap.dedent("\n".join(c.output)) for c in COMMANDS if c.text == text and c.output]


def missing(fields: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """Fields, as kubectl describe names them, that the definition does not have."""
    for title, value in fields.items():
        name = title[0].lower() + title[1:].replace(" ", "")
        properties = schema.get("properties", {})
        if name not in properties:
            yield title
        elif isinstance(value, dict):
            yield from missing(value, properties[name])


def test_the_output_that_is_shown_has_the_columns_and_fields_of_the_definition() -> None:
    listed = VERSION["additionalPrinterColumns"]
    columns = [column["name"] for column in listed if not column.get("priority")]
    tables = shown("kubectl get itrain")
    assert tables
    for table in tables:
        assert table.splitlines()[0].split() == ["NAME", *columns]
    pages = shown("kubectl describe itrain bninception")
    assert len(pages) == 2
    for page in pages:
        fields = yaml.safe_load(page)
        assert (
            list(missing(fields, VERSION["schema"]["openAPIV3Schema"]["properties"]["status"]))
            == []
        )


@pytest.mark.nightly
@pytest.mark.parametrize(
    "text", sorted({command.text for command in COMMANDS if is_benchmark(command.text)})
)
def test_benchmarks_take_what_the_documents_say(text: str) -> None:
    search = f"{PARSE_ONLY}:{ROOT}:{ROOT}/operator:{ROOT}/trainer:{ROOT}/tests/support"
    done = subprocess.run(
        ["bash", "-c", text.replace("PYTHONPATH=", f"PYTHONPATH={PARSE_ONLY}:")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "taken\n"), done.stderr
