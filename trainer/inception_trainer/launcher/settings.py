"""The launcher's settings: command line and environment, read once."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from . import torchrun
from .assignment import digest, notify_address
from .hang_detector import STEP_FLOOR_SECONDS


class SettingsError(ValueError):
    """A setting is malformed; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Everything the launcher was told when it was started."""

    assignment: Path = Path("/etc/inception/assignment")
    port: int = 8080
    termination_log: Path = Path("/dev/termination-log")
    """Where the last report goes."""
    program: tuple[str, ...] = ()
    """What every rank runs; empty: the bundled trainer."""
    notes: tuple[str, ...] = ()
    """What to say about the program before it runs."""
    keep_warm: float = 600.0
    """Seconds that the launcher waits for the next assignment after an attempt has failed."""
    shutdown: float = 110.0
    """Seconds that ranks may take to save and stop when asked to."""
    progress_deadline: float | None = None
    """Seconds that a rank may give no heartbeat; 0: any number, None: as its own steps tell."""
    hang_floor: float = STEP_FLOOR_SECONDS
    """The least number of seconds that is learned from them."""
    job: str = ""
    """``<namespace>/<name>``"""
    host: str = ""
    """The pod's name."""
    token: str = ""
    """What the operator shows to be told everything: the pod's UID, which only those know who may
    read pods. Empty in pods of operators that show none: everybody is told everything.
    """
    notify_address: str = ""
    """Host and port of the operator that made the pod; an assignment may bring another one's."""
    next_key: str = ""
    """The SHA-256 of the key with which the first assignment may be delivered; empty: only the file
    tells.
    """


def read(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read command line and environment; a malformed value raises ``SettingsError``."""
    argv, program = _split(argv)
    options = _parser().parse_args(argv)
    try:
        command = torchrun.unwrap(program)
    except torchrun.TorchrunError as error:
        raise SettingsError(str(error)) from error
    return Settings(
        assignment=options.assignment,
        port=options.port,
        termination_log=options.termination_log,
        program=command.program,
        notes=command.notes,
        keep_warm=_seconds(environ, "INCEPTION_WARM_HOLD_SECONDS", Settings.keep_warm),
        shutdown=_seconds(environ, "INCEPTION_SHUTDOWN_SECONDS", Settings.shutdown),
        progress_deadline=_seconds(environ, "INCEPTION_PROGRESS_DEADLINE_SECONDS", None),
        hang_floor=_seconds(environ, "INCEPTION_HANG_FLOOR_SECONDS", Settings.hang_floor),
        job=environ.get("INCEPTION_JOB", ""),
        host=environ.get("POD_NAME") or os.uname().nodename,
        token=environ.get("INCEPTION_POD_UID", ""),
        notify_address=notify_address(environ.get("INCEPTION_NOTIFY_ADDRESS", "")),
        next_key=digest(environ.get("INCEPTION_NEXT_KEY", "")),
    )


def _split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Take off what follows the first ``--``: the program."""
    # argparse would also swallow a second -- that belongs to the program.
    argv = list(argv)
    if "--" not in argv:
        return argv, ()
    at = argv.index("--")
    return argv[:at], tuple(argv[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inception_trainer launch",
        description="Resident launcher of a worker pod: "
        "runs the ranks that the operator assigns to it.",
        epilog="After --: a script, 'module:function', '-m module' or a command "
        "that every rank runs instead of the bundled trainer.",
    )
    parser.add_argument("--assignment", type=Path, default=Settings.assignment, metavar="FILE")
    parser.add_argument(
        "--port", type=int, default=Settings.port, help="port of /status, /readyz and /healthz"
    )
    parser.add_argument(
        "--termination-log", type=Path, default=Settings.termination_log, metavar="FILE"
    )
    return parser


Default = TypeVar("Default", float, float | None)


def _seconds(environ: Mapping[str, str], name: str, default: Default) -> float | Default:
    text = environ.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise SettingsError(f"{name}: not a number of seconds: {text!r}")
    return float(text)
