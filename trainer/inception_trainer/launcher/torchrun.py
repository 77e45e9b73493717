"""Reads a torchrun command line: the launcher starts the ranks itself, so only the program counts.

Options that the job's spec decides here are ignored and reported; those that torchrun itself would
refuse are refused. ``settings`` calls ``unwrap``.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

MODULES = ("torch.distributed.run", "torch.distributed.launch")
_PYTHON = re.compile(r"(.*/)?python(\d+(\.\d+)?)?")
# What decides where ranks run, how they meet and what happens when they end: the job's spec does
# that here.
_OURS = (
    "--nnodes",
    "--nproc-per-node",
    "--node-rank",
    "--master-addr",
    "--master-port",
    "--local-addr",
    "--rdzv-backend",
    "--rdzv-endpoint",
    "--rdzv-id",
    "--rdzv-conf",
    "--max-restarts",
    "--monitor-interval",
    "--start-method",
    "--event-log-handler",
    "--role",
    "--log-dir",
    "--redirects",
    "--tee",
    "--local-ranks-filter",
    "--logs-specs",
    "--numa-binding",
    "--signals-to-handle",
    "--shutdown-timeout",
    "--duplicate-stdout-filters",
    "--duplicate-stderr-filters",
    "--log-line-prefix-template",
)
_FLAGS = (
    "--standalone",
    "--use-env",
    "--virtual-local-rank",
    "--module",
    "--no-python",
    "--run-path",
)
_SHORT = {"--redirects": "-r", "--tee": "-t", "--module": "-m"}
_INSTEAD = {
    "--nproc-per-node": "spec.numProcPerNode says how many ranks a node has",
    "--nnodes": "spec.numNodes says how many nodes there are",
    "--max-restarts": "spec.failurePolicy.maxRestarts says how often the job restarts",
}


class TorchrunError(ValueError):
    """A command line that torchrun or the launcher cannot run; the message names the option."""


@dataclass(frozen=True)
class Command:
    """The program of every rank, and what is worth saying about the options that were dropped."""

    program: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


def unwrap(program: Sequence[str]) -> Command:
    """Give the program inside a torchrun command line; every other command is its own program."""
    arguments = _arguments(program)
    if arguments is None:
        return Command(tuple(program))
    options = _parser().parse_args(arguments)
    if options.virtual_local_rank:
        raise TorchrunError("torchrun: --virtual-local-rank is not supported; remove it")
    return Command(_program(options), tuple(_notes(options)))


def _arguments(program: Sequence[str]) -> list[str] | None:
    """Give what follows torchrun, or None when it is not torchrun that is called."""
    if not program:
        return None
    first, *rest = program
    if first.rpartition("/")[2] == "torchrun":
        return rest
    if not _PYTHON.fullmatch(first):
        return None
    if rest[:1] == ["-u"]:
        del rest[0]
    if rest[:1] != ["-m"] or rest[1:2] == [] or rest[1] not in MODULES:
        return None
    # Without --use-env the old module hands each rank a --local-rank, which only it can do.
    if rest[1] == MODULES[1] and not {"--use-env", "--use_env"} & set(rest[2:]):
        raise TorchrunError(
            "torch.distributed.launch: the argument --local-rank is not passed on; "
            "let the program read the variable LOCAL_RANK, and use torchrun"
        )
    return rest[2:]


def _program(options: argparse.Namespace) -> tuple[str, ...]:
    words = (options.program, *options.arguments)
    if options.no_python:
        return words
    if options.module:
        return (sys.executable, "-m", *words)
    return (sys.executable, *words)


def _notes(options: argparse.Namespace) -> Iterator[str]:
    for option in _OURS:
        value = getattr(options, option[2:].replace("-", "_"))
        if value is not None:
            instead = _INSTEAD.get(option, "the operator and the launcher see to that")
            yield f"torchrun's option {option}={value} is ignored: {instead}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse itself would print a usage and exit.
        raise TorchrunError(f"torchrun: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="torchrun", add_help=False)
    for option in _OURS:
        parser.add_argument(*_spellings(option))
    for flag in _FLAGS:
        parser.add_argument(*_spellings(flag), action="store_true")
    parser.add_argument("program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def _spellings(option: str) -> list[str]:
    """Give an option with dashes and with underscores, as torchrun takes both."""
    spellings = [option]
    underscored = "--" + option[2:].replace("-", "_")
    if underscored != option:
        spellings.append(underscored)
    if option in _SHORT:
        spellings.append(_SHORT[option])
    return spellings
