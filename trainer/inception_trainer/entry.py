"""How a rank is run, and how its errors reach the outside: exit code, one line, torch elastic's error file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from inception_trainer import settings as environment
from inception_trainer.config import TrainingConfig, load
from inception_trainer.errors import ConfigError, TrainerError
from inception_trainer.settings import Settings


def train() -> None:
    """Run this rank as the environment says; the launcher calls this in every process that it forks.

    Returns when the training is finished. Ends the process (SystemExit) with the code of a TrainerError, 75 after a
    graceful stop included. Any other exception leaves this function, for torch elastic to record.
    """
    with_config(_from_environment)


def with_config(make: Callable[[Settings], TrainingConfig]) -> None:
    """Like :func:`train` with a configuration from elsewhere."""
    environment.prepare()
    settings = None
    try:
        settings = environment.from_environment()
        config = make(settings)
        from inception_trainer import session

        session.run(config, settings)
    except TrainerError as error:
        end(error, settings)


def end(error: TrainerError, settings: Settings | None = None) -> NoReturn:
    """Report ``error`` and end the process with its code."""
    message = f"{type(error).__name__}: {error}"
    if settings is not None and settings.error_file is not None:
        stamp = str(int(time.time()))
        content = {"message": {"message": message, "extraInfo": {"timestamp": stamp, "exitCode": error.exit_code}}}
        with suppress(OSError):
            settings.error_file.write_text(json.dumps(content), encoding="utf-8")
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code) from None


def _from_environment(settings: Settings) -> TrainingConfig:
    if settings.config_json is None:
        raise ConfigError("INCEPTION_CONFIG: not set, and no configuration file was given")
    return load(settings.config_json, source="INCEPTION_CONFIG")
