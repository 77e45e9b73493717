"""What the trainer does besides training: a module for each mode, with ``run(run) -> summary``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from inception_trainer.config.settings import Settings
from inception_trainer.config.training import TrainingConfig

from .common import execute


def run(config: TrainingConfig, settings: Settings) -> dict[str, Any]:
    """Do what ``mode`` says, as the rank that ``settings`` says; returns the content of
    summary.json.

    Raises the errors of :mod:`inception_trainer.errors`; Stopped when asked to stop.
    """
    # By name: each mode imports packages that the others can do without.
    mode = import_module(f"{__name__}.{config.mode.lower()}")
    summary = execute(config, settings, mode.run)
    if config.mode == "Preflight":
        # Not before the process group has ended: the other ranks are no failures.
        mode.judge(summary, settings.rank)
    return summary
