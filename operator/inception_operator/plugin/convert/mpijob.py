"""``MPIJob`` of ``kubeflow.org/v2beta1``, as far as it runs plain DDP by mpirun."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from inception_operator.accelerators.profile import Profile
from inception_operator.contract.types import Json

from . import kubeflow, pods, shell, torchrun
from .draft import Draft, begin
from .ledger import Field, Ledger

_MPIRUN: Final = frozenset(("mpirun", "mpiexec", "orterun"))
# How many words follow each option of Open MPI, Intel MPI and MPICH; those with "=" have none.
_ARGUMENTS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("mca", "gmca", "genv", "env"), 2),
    **dict.fromkeys(("np", "n", "c", "npernode", "N", "ppn", "perhost"), 1),
    **dict.fromkeys(("H", "host", "hosts", "hostfile", "f", "machinefile", "rf", "rankfile"), 1),
    **dict.fromkeys(("bind-to", "map-by", "rank-by", "x", "genvlist", "wdir", "wd"), 1),
    **dict.fromkeys(("timeout", "output-filename", "prefix", "iface", "personality"), 1),
}
_NUMBER_OF_RANKS: Final = frozenset(("np", "n", "c"))
_PER_NODE: Final = frozenset(("npernode", "N", "ppn", "perhost"))
_OTHER_FRAMEWORKS: Final = re.compile(
    r"horovod|tensorflow|tf_cnn|mxnet|paddle|mindspore|jax", re.IGNORECASE
)
_CONTAINERS: Final = ("mpi-worker", "worker", "mpi", "pytorch")


@dataclass
class Mpirun:
    """A command line of mpirun: the program, and what the options say."""

    program: list[str]
    ranks: int | None = None
    per_node: int | None = None
    directory: str | None = None
    exported: dict[str, str | None] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


def convert(ledger: Ledger, profiles: Mapping[str, Profile]) -> Draft:
    """The training of an MPIJob; the launcher's pod is not needed any more."""
    job = ledger.root
    draft = begin(job)
    spec = job["spec"]
    launcher, worker = spec["mpiReplicaSpecs"]["Launcher"], spec["mpiReplicaSpecs"]["Worker"]
    if not worker.present:
        raise spec["mpiReplicaSpecs"].refusal("there is no Worker", "add one")
    draft.nodes = kubeflow.take_replicas(worker)
    launcher["replicas"].settle()
    if spec["runLauncherAsWorker"].take():
        draft.nodes += 1
    if not draft.nodes:
        raise worker["replicas"].refusal("there are no workers", "add some")
    start = pods.training_container(launcher["template"]["spec"], ())
    if start is None:
        raise launcher.refusal("there is no container that calls mpirun", "add it")
    line = _read_command(start)
    container = pods.read(worker["template"], _CONTAINERS, draft, profiles)
    _refuse_frameworks(start, container, line)
    # What a worker itself runs is the daemon that mpirun calls.
    for key in ("command", "args"):
        container[key].drop("workers waited for mpirun there")
    slots = spec["slotsPerWorker"].number() or 1
    _set_command(draft, line)
    _set_ranks(draft, start, line, slots)
    if spec["slotsPerWorker"].present and draft.ranks != slots:
        spec["slotsPerWorker"].drop(
            f"mpirun's own options make it {draft.ranks} ranks on each node"
        )
    _export(draft, start["env"], line)
    kubeflow.read_restart_policy(worker["restartPolicy"], draft)
    _settle_launcher(launcher)
    _drop_means(spec)
    kubeflow.read_run_policy(spec["runPolicy"], draft)
    kubeflow.warn_of_group(worker["template"]["spec"], draft)
    return draft


def _read_command(start: Field) -> Mpirun:
    words = [*start["command"].words(), *start["args"].words()]
    script = shell.script_of(words)
    if script is not None:
        simple = shell.simplify(script)
        if simple is None:
            raise start["command"].refusal(
                "the script does more than call mpirun, and its pod is not needed any more",
                "let the command be mpirun alone, and what comes before it an init container",
            )
        words = list(simple.words)
    if not words or words[0].rpartition("/")[2] not in _MPIRUN:
        raise start["command"].refusal(
            "it does not call mpirun, so nothing tells what the ranks run",
            "let the command be mpirun with its program",
        )
    return read_mpirun(words[1:])


def read_mpirun(words: Sequence[str]) -> Mpirun:
    """What a command line says behind its first word."""
    rest = list(words)
    line = Mpirun([])
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        name, equals, value = option.lstrip("-").partition("=")
        given = [value] if equals else [rest.pop(0) for _ in range(_ARGUMENTS.get(name, 0)) if rest]
        _read_option(line, name, given)
    line.program = rest
    return line


def _read_option(line: Mpirun, name: str, given: Sequence[str]) -> None:
    first = given[0] if given else ""
    if name in _NUMBER_OF_RANKS and first.isdecimal():
        line.ranks = int(first)
    elif name in _PER_NODE and first.isdecimal():
        line.per_node = int(first)
    elif name in ("wdir", "wd"):
        line.directory = first
    elif name in ("x", "env", "genv"):
        variable, equals, value = first.partition("=")
        line.exported[variable] = value if equals else (given[1] if len(given) > 1 else None)
    else:
        line.ignored.append(name)
    match = re.fullmatch(r"ppr:(\d+):node", first)
    if name == "map-by" and match:
        line.per_node = int(match[1])


def _refuse_frameworks(start: Field, container: Field, line: Mpirun) -> None:
    images = [str(each["image"].value or "") for each in (start, container)]
    text = " ".join((*line.program, *images))
    if found := _OTHER_FRAMEWORKS.search(text):
        raise start["command"].refusal(
            f"{found[0]} brings its ranks together by MPI itself",
            "only plain DDP of PyTorch can be carried over",
        )
    program = line.program
    if not program or not (torchrun.PYTHON.fullmatch(program[0]) or program[0].endswith(".py")):
        raise start["command"].refusal(
            f"{program[0] if program else 'nothing'} is no Python program, so it is no DDP",
            "let mpirun call python with the program that trains",
        )


def _set_command(draft: Draft, line: Mpirun) -> None:
    draft.set_command(line.program)
    if line.directory is not None:
        draft.trainer["workingDir"] = line.directory


def _set_ranks(draft: Draft, start: Field, line: Mpirun, slots: int) -> None:
    draft.ranks = line.per_node or slots
    wanted = line.ranks
    if wanted is not None and wanted != draft.nodes * draft.ranks:
        if wanted % draft.nodes == 0:
            draft.ranks = wanted // draft.nodes
        else:
            start["command"].change(
                f"mpirun started {wanted} ranks; {draft.nodes} nodes of {draft.ranks} are "
                f"{draft.nodes * draft.ranks}",
                "correct spec.numNodes and spec.numProcPerNode",
            )
    start["command"].change(
        "the ranks find RANK, LOCAL_RANK, WORLD_SIZE and MASTER_ADDR; nobody sets the variables "
        f"of MPI (OMPI_COMM_WORLD_RANK and the like){_options(line)}",
        "let the program read these, and a backend such as nccl or gloo instead of mpi",
    )


def _options(line: Mpirun) -> str:
    names = sorted(set(line.ignored))
    return f", nor is anything made of mpirun's {', '.join(names)}" if names else ""


def _export(draft: Draft, env: Field, line: Mpirun) -> None:
    """Variables that mpirun handed on to the ranks; the launcher's other ones stayed with it."""
    entries: list[Json] = list(draft.trainer.get("env") or ())
    for variable, value in line.exported.items():
        found = next((each for each in env.children() if each["name"].value == variable), None)
        if value is not None:
            entries = [each for each in entries if each.get("name") != variable]
            entries.append({"name": variable, "value": value})
        elif found is not None:
            entries = [each for each in entries if each.get("name") != variable]
            entries += [found.take()]
    kept = [entry for entry in entries if not pods.is_reserved(str(entry.get("name")))]
    if kept:
        draft.trainer["env"] = kept
    for entry in env.children():
        if entry["name"].value not in line.exported:
            entry.drop(
                "mpirun did not hand it on to the ranks (no -x)",
                "add it to env of the container trainer, if the program reads it",
            )


def _settle_launcher(launcher: Field) -> None:
    launcher["restartPolicy"].settle()
    spec = launcher["template"]["spec"]
    container = pods.training_container(spec, ())
    for child in container.children() if container else ():
        if child.key == "name":
            child.settle()
        elif child.key not in ("command", "args", "env"):
            child.drop("no pod is needed that calls mpirun", "the pods are those of the Worker")
    for child in spec.children():
        if child.key != "containers":
            child.drop("no pod is needed that calls mpirun", "the pods are those of the Worker")
    launcher["template"]["metadata"].drop("no pod is needed that calls mpirun")


def _drop_means(spec: Field) -> None:
    for key in (
        "sshAuthMountPath",
        "mpiImplementation",
        "launcherCreationPolicy",
        "waitForWorkers",
    ):
        spec[key].drop("no rank is reached by ssh or MPI")
