"""The command of the container that trains: from what the old job ran to what every rank runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from . import shell, torchrun
from .draft import Draft
from .ledger import Field

_REFERENCE: Final = re.compile(r"\$\(?\{?([A-Za-z_][A-Za-z0-9_]*)\}?\)?")
# These meet over ssh or a hostfile of their own, which no pod of a training has.
_FOREIGN: Final = frozenset(("horovodrun", "deepspeed", "mpirun", "mpiexec", "tune", "srun"))
# Variables of the ranks, which Kubernetes cannot fill in, and those of other controllers.
_UNSET: Final = re.compile(
    r"\$\((?:MASTER_\w+|RANK|WORLD_SIZE|LOCAL_RANK)\)"
    r"|\b(?:VC_\w+|VK_TASK_INDEX|JOB_COMPLETION_INDEX|PET_\w+|OMPI_\w+|PMI_\w+)\b"
)
_ELSEWHERE: Final = {
    "nproc-per-node": "spec.numProcPerNode says it",
    "nnodes": "spec.numNodes says it",
    "max-restarts": "spec.failurePolicy.maxRestarts says it",
}


@dataclass(frozen=True)
class Plan:
    """What a command comes to.

    ``options`` are those of torchrun, None where it was not called. With ``own_ranks`` it is a
    script that starts its ranks itself, once on each node.
    """

    words: tuple[str, ...]
    options: dict[str, str] | None = None
    own_ranks: bool = False
    old_launch: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    directory: str | None = None
    left_out: tuple[str, ...] = ()

    @property
    def calls_torchrun(self) -> bool:
        """Whether torchrun was to start the ranks."""
        return self.options is not None


def plan(words: Sequence[str], known: Collection[str], ranks: str) -> Plan:
    """What to run in place of these words.

    ``known`` are the variables of the container, ``ranks`` how many torchrun would start if it does
    not say so itself.
    """
    script = shell.script_of(words)
    if script is None:
        return _direct(words)
    simple = shell.simplify(script)
    if simple is not None:
        made = _direct(simple.words)
        usable = {*known, *simple.variables}
        program = [shell.translate(word, usable) for word in made.words]
        if None not in program:
            return Plan(
                tuple(word for word in program if word is not None),
                made.options,
                old_launch=made.old_launch,
                variables=simple.variables,
                directory=simple.directory,
                left_out=simple.left_out,
            )
    if not shell.calls_torchrun(script):
        return Plan(tuple(words))
    rewritten, options = shell.rewrite(script, ranks)
    return Plan((*words[:-1], rewritten), options, own_ranks=True)


def is_same(one: Sequence[object], other: Sequence[object]) -> bool:
    """Whether two command lines run the same program, torchrun's own options aside."""
    programs = [
        plan([str(word) for word in words], (), "").words for words in (one, other) if words
    ]
    return len(programs) == 2 and programs[0] == programs[1]


def _direct(words: Sequence[str]) -> Plan:
    line = torchrun.read(words)
    if line is None:
        return Plan(tuple(words))
    return Plan(line.program, line.options, old_launch=line.old_launch)


def apply(
    draft: Draft, command: Field, args: Field, ranks: Field | None = None, default: str = "1"
) -> None:
    """Give the draft its program and number of ranks; says what became of the command.

    ``ranks`` is what the job says of them besides its command, ``default`` what its torchrun
    starts without a word of either.
    """
    words = [*command.words(), *args.words()]
    if not command.value:
        raise command.refusal(
            "the program is the entry point of the image, which nothing here tells",
            "set command to the image's ENTRYPOINT (and args to its CMD) and convert again",
        )
    _refuse_foreign(command, words)
    variables = literals(draft.trainer.get("env") or ())
    known = {entry.get("name", "") for entry in draft.trainer.get("env") or ()}
    wanted = str(ranks.value) if ranks is not None and ranks.value is not None else default
    found = plan(words, known, wanted)
    if found.words != tuple(words):
        draft.set_command(list(found.words))
    else:
        draft.trainer["command"] = list(command.value)
        if args.value:
            draft.trainer["args"] = list(args.value)
    _place(draft, found)
    _explain(command if script_in(command) or not args.value else args, found)
    _limit_restarts(draft, found)
    _set_nodes(draft, command, found)
    _set_ranks(draft, command, found, resolve(wanted, variables), variables)
    if ranks is not None and ranks.present:
        _explain_ranks(ranks, found, wanted)


def script_in(command: Field) -> bool:
    """Whether the script of a shell, or all of a command, is in this field."""
    return shell.script_of(command.value or ()) is not None


def literals(env: Collection[dict[str, object]]) -> dict[str, str]:
    """The variables whose values are written down."""
    return {
        str(entry.get("name")): str(entry["value"])
        for entry in env
        if entry.get("value") is not None
    }


def resolve(value: str, variables: dict[str, str]) -> str:
    """A value with a variable in its place, where the container says what it is."""
    match = _REFERENCE.fullmatch(value.strip("\"'"))
    return variables.get(match[1], value) if match else value.strip("\"'")


def _refuse_foreign(command: Field, words: Sequence[str]) -> None:
    script = shell.script_of(words)
    text = words if script is None else script.split()
    launcher = next((word for word in text if word.rpartition("/")[2] in _FOREIGN), None)
    if launcher is not None:
        raise command.refusal(
            f"{launcher} starts the ranks by means that pods of a training do not have",
            "let the command be torchrun or python with a program that reads RANK and WORLD_SIZE",
        )


def _place(draft: Draft, found: Plan) -> None:
    if found.directory is not None:
        draft.trainer["workingDir"] = found.directory
    if found.variables:
        own = [
            entry
            for entry in draft.trainer.get("env") or ()
            if entry.get("name") not in found.variables
        ]
        added = [{"name": name, "value": value} for name, value in found.variables.items()]
        draft.trainer["env"] = [*own, *added]


def _explain(command: Field, found: Plan) -> None:
    unset = sorted(set(_UNSET.findall(" ".join(found.words))))
    if unset:
        command.change(
            f"nobody fills in {', '.join(unset)} here",
            "let the program read RANK, WORLD_SIZE, LOCAL_RANK, GROUP_RANK and MASTER_ADDR itself",
        )
    if found.own_ranks:
        command.change(
            "the script runs once on each node and starts its ranks itself, with the address of "
            "this job in torchrun's options",
            "name torchrun and its program as the command, without a shell, for restarts that "
            "keep the process and for failures told by rank",
        )
        return
    gone = [name for name in found.options or {} if name not in _ELSEWHERE]
    if gone:
        listed = ", ".join(f"--{name}" for name in gone)
        command.change(f"without torchrun's {listed}: operator and launcher see to that")
    if found.old_launch:
        command.change(
            "torch.distributed.launch gave each rank --local-rank, torchrun does not",
            "let the program read the variable LOCAL_RANK",
        )
    if found.left_out:
        command.change(f"without {'; '.join(found.left_out)}")
    if (found.words[0].rpartition("/")[2]) == "accelerate":
        command.change(
            "accelerate starts ranks itself, once on each node, and knows nothing of the others",
            "let the command be python with its script: Accelerator reads RANK and WORLD_SIZE",
        )


def _limit_restarts(draft: Draft, found: Plan) -> None:
    most = (found.options or {}).get("max-restarts", "")
    if most.isdecimal():
        draft.failure_policy.setdefault("maxRestarts", int(most))


def _set_nodes(draft: Draft, command: Field, found: Plan) -> None:
    """What torchrun's own number of nodes says beyond the number of pods."""
    options = found.options or {}
    nodes = options.get("nnodes", "")
    least, colon, most = nodes.partition(":")
    if colon and least.isdecimal() and most.isdecimal() and not draft.elastic:
        if int(least) <= draft.nodes <= int(most):
            draft.elastic = {"minNodes": max(1, int(least)), "maxNodes": int(most)}
        return
    alone = "standalone" in options or nodes == "1"
    if alone and draft.nodes > 1:
        command.change(
            f"each of the {draft.nodes} pods trained by itself; here they train together",
            "set spec.numNodes to 1 and make one training for each, if that was meant",
        )
    elif nodes.isdecimal() and int(nodes) != draft.nodes:
        command.change(
            f"torchrun waited for {nodes} nodes, but there are {draft.nodes} pods",
            "correct spec.numNodes",
        )


def _explain_ranks(ranks: Field, found: Plan, wanted: str) -> None:
    """Say of the job's own number of ranks where something else counts."""
    ranks.settle()
    if not found.calls_torchrun:
        ranks.drop("only torchrun read it, which is not called", "set spec.numProcPerNode")
    elif (found.options or {}).get("nproc-per-node", wanted) != wanted:
        ranks.drop("torchrun's own option goes before it", "set spec.numProcPerNode")


def _set_ranks(
    draft: Draft, command: Field, found: Plan, otherwise: str, variables: dict[str, str]
) -> None:
    if found.own_ranks or not found.calls_torchrun:
        # Only torchrun started more than one process in a pod.
        draft.ranks = 1
        return
    ranks = resolve((found.options or {}).get("nproc-per-node") or otherwise, variables)
    if ranks.isdecimal() and int(ranks) > 0:
        draft.ranks = int(ranks)
        return
    draft.ranks = None
    if ranks not in ("auto", "gpu", "cpu"):
        command.change(
            f"nobody here knows how many ranks {ranks} is; each device gets one",
            "set spec.numProcPerNode",
        )
    elif not draft.accelerator or ranks == "cpu":
        command.change(
            f"torchrun's {ranks} may mean one rank for each CPU of a node; here it means one for "
            "each device, and one where there is none",
            "set spec.numProcPerNode",
        )
