"""What `pipx install` gives to users of the commands: one wheel, without repository and torch."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from inception_operator import __version__
from inception_operator.plugin import cli
from installed_commands import ROOT, InstalledCommands, build_wheel

# Building asks the index of pip for hatchling, and takes seconds.
pytestmark = pytest.mark.nightly

SAMPLE = ROOT / "manifests" / "samples" / "bninception-digits.yaml"
FOREIGN = ROOT / "tests" / "support" / "foreign_manifests" / "pytorchjob-cpu-pair.yaml"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> InstalledCommands:
    return InstalledCommands(tmp_path_factory.mktemp("installed"), wheel)


def answer(done: subprocess.CompletedProcess[str]) -> str:
    """What a program says that has ended well, without a warning."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_wheel_has_every_file_of_both_packages(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "operator/inception_operator", "trainer/inception_trainer"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = {name.partition("/")[2] for name in listed.stdout.splitlines()}
    assert len(files) > 300
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert files - held == set()
    assert {name.partition("/")[0] for name in held} == {"inception_operator", "inception_trainer"}


def test_neither_the_repository_nor_torch_is_there(installed: InstalledCommands) -> None:
    code = (
        "import importlib.util as u, inception_operator, sys; print(inception_operator.__file__); "
        "print([n for n in ('torch', 'numpy', 'kopf', 'pytest') if u.find_spec(n)], sys.path)"
    )
    said = answer(installed.run("python", "-c", code))
    file, rest = said.splitlines()
    assert file.startswith(str(installed.packages))
    assert rest.startswith("[] ")
    assert str(ROOT) not in rest


@pytest.mark.parametrize("program", ["kubectl-inception", "inceptionctl"])
def test_it_says_its_version_and_all_its_commands(
    program: str, installed: InstalledCommands
) -> None:
    version = answer(installed.run(program, "version", "--client"))
    assert version.split() == ["client", __version__]
    listed = answer(installed.run(program, "--help"))
    for name in cli.COMMANDS:
        assert f"\n  {name} " in listed


IMPORTS = """
import ast, importlib, importlib.util, pathlib, sys
import inception_operator
root = pathlib.Path(inception_operator.__file__).parent
wanted = set()
for room in ("client", "plugin", "report", "sdk"):
    for file in (root / room).rglob("*.py"):
        module = ".".join(file.relative_to(root.parent).with_suffix("").parts)
        if module.endswith(".plugin.local_run"):
            continue
        if not module.endswith("__main__"):
            importlib.import_module(module.removesuffix(".__init__"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                wanted.add(node.module)
wanted.discard("pandas")
for module in sorted(wanted):
    importlib.import_module(module)
print(*sorted({name.partition(".")[0] for name in wanted} - sys.stdlib_module_names))
"""


def test_all_that_any_command_imports_is_there(installed: InstalledCommands) -> None:
    # pandas is the user's own: `history` of the SDK names it where it is missing. A local run needs
    # the trainer's packages as well, which it asks for first.
    names = set(answer(installed.run("python", "-W", "error", "-c", IMPORTS)).split())
    assert {"click", "kubernetes", "pydantic", "rich", "websocket", "yaml"} <= names


def test_a_command_that_asks_the_cluster_says_what_it_lacks(installed: InstalledCommands) -> None:
    done = installed.run("kubectl-inception", "list", "--kubeconfig=missing")
    assert done.returncode == 69
    assert "no usable kubeconfig (missing)" in done.stderr


def test_kubectl_and_shells_complete_it(installed: InstalledCommands) -> None:
    said = answer(installed.run("kubectl_complete-inception", "run", "--rec"))
    assert said == "--recipe\tA preset; `recipes` lists them.\n:4\n"
    script = answer(installed.run("inceptionctl", "completion", "bash"))
    assert "complete -o nosort -F" in script
    words = {"COMP_WORDS": "inceptionctl desc", "COMP_CWORD": "1"}
    said = answer(installed.run("inceptionctl", _INCEPTIONCTL_COMPLETE="bash_complete", **words))
    assert said == "plain,describe\n"


def test_recipes_jobs_and_what_is_made_of_others_need_no_more(
    installed: InstalledCommands,
) -> None:
    recipes = answer(installed.run("kubectl-inception", "recipes"))
    assert "bninception-digits " in recipes
    wish = ("digits", "--recipe", "bninception-digits", "--accelerator", "cpu")
    job = yaml.safe_load(answer(installed.run("kubectl-inception", "run", *wish, "--dry-run")))
    assert job["spec"]["training"] == {"recipe": "bninception-digits"}
    made = installed.run("kubectl-inception", "init", *wish)
    assert (made.returncode, (installed.folder / "job.yaml").exists()) == (0, True), made.stderr
    other = yaml.safe_load(installed.run("kubectl-inception", "convert", str(FOREIGN)).stdout)
    assert other["kind"] == "InceptionTraining"


def test_a_job_on_this_machine_is_shown_and_what_it_needs_more_is_named(
    installed: InstalledCommands,
) -> None:
    shown = answer(installed.run("inceptionctl", "local", "run", str(SAMPLE), "--dry-run"))
    assert yaml.safe_load(shown)["kind"] == "InceptionTraining"
    done = installed.run("inceptionctl", "local", "run", str(SAMPLE))
    assert done.returncode == 1
    assert "needs the package torch" in done.stderr
    assert "inception-training-operator[cli,torch,trainer]" in done.stderr
