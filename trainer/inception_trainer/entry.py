"""Runs one rank, and takes its errors outside: exit code, one line, torch elastic's error file.

:func:`train` is what the launcher calls in each process that it forks; the command line comes in
through :func:`run_as_process`. Both do what ``mode`` says.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from typing import NoReturn

from . import affinity
from .config import settings as environment
from .config.settings import Settings
from .config.training import TrainingConfig, load
from .errors import ConfigError, InputMissing, TrainerError
from .log import printable

SAME_DEVICE = "duplicate gpu detected"
"""How NCCL and RCCL word it, in small letters, in the first collective of two such ranks."""
MOST_WORDS = 200
"""Characters of their own message, of which the last ones tell ranks and device."""


def train() -> None:
    """Run this rank as the environment says; the launcher calls this in every process that it
    forks.

    Returns when what ``mode`` says is done. A TrainerError (``exit_code``; Stopped and its 75 after
    a graceful stop included) and any other exception leave this function, after the former was
    written to torch elastic's error file.
    """
    environment.prepare()
    settings = environment.from_environment()
    try:
        if settings.config_json is None:
            raise ConfigError("INCEPTION_CONFIG: not set")
        config = load(
            settings.config_json, source="INCEPTION_CONFIG", image_folder=settings.image_folder
        )
        _run(config, settings)
    except TrainerError as error:
        write_error_file(error, settings)
        raise


def run_as_process(config: TrainingConfig, settings: Settings) -> None:
    """Like :func:`train` for a process of its own: a TrainerError ends it with its code and one
    line, no traceback.
    """
    try:
        _run(config, settings)
    except TrainerError as error:
        end(error, settings)


def _run(config: TrainingConfig, settings: Settings) -> None:
    try:
        _work(config, settings)
    except InputMissing as error:
        # The path stands in no configuration, so the message must say where it came from.
        if not _is_about_image_folder(error, config, settings):
            raise
        raise InputMissing(
            f"{error}; the variable {environment.IMAGE_FOLDER} names this folder"
        ) from error
    except RuntimeError as error:
        # In whichever collective of whichever mode comes first.
        if SAME_DEVICE not in str(error).lower():
            raise
        raise ConfigError(
            "accelerator: two ranks of a node have the same device, which collectives cannot "
            "connect; request whole devices instead of shares of one (time-slicing, MPS), or one "
            f"rank per node ({' '.join(str(error).split())[-MOST_WORDS:]})"
        ) from error


def _is_about_image_folder(error: InputMissing, config: TrainingConfig, settings: Settings) -> bool:
    data = config.data
    from_variable = data.kind == "ImageFolder" and data.path == settings.image_folder
    return from_variable and str(error).startswith("data.path:")


def _work(config: TrainingConfig, settings: Settings) -> None:
    # Before torch computes anything: threads inherit the CPUs of the one that starts them.
    settings = affinity.pin_rank(config.cpu_affinity, settings)
    if config.mode == "Train":
        from .train import build

        build.run(config, settings)
    else:
        from . import modes

        modes.run(config, settings)


def write_error_file(error: TrainerError, settings: Settings) -> None:
    """Leave the message where torch elastic looks for the reason of a failure."""
    if settings.error_file is None:
        return
    extra = {"timestamp": str(int(time.time())), "exitCode": error.exit_code}
    content = {
        "message": {"message": printable(f"{type(error).__name__}: {error}"), "extraInfo": extra}
    }
    # The exit code says the same; a full disk must not replace the reason by another.
    with suppress(OSError):
        settings.error_file.write_text(json.dumps(content), encoding="utf-8")


def end(error: TrainerError, settings: Settings | None = None) -> NoReturn:
    """Report ``error`` and end the process with its code."""
    if settings is not None:
        write_error_file(error, settings)
    # Both go to the same log of the pod, where the reason must come last.
    sys.stdout.flush()
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code) from None
