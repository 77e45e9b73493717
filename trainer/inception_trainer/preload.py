"""Lists the modules that the launcher imports before it forks the ranks: everything heavy, nothing
that starts a thread or a device.

Importing this module prepares the environment (OpenMP reads it when torch is loaded), so import it
before torch; then import :data:`MODULES` in their order, skipping what is not installed.
"""

from __future__ import annotations

from .config import settings

MODULES: tuple[str, ...] = (
    "numpy",
    "yaml",
    "torch",
    "torch._dynamo",
    "torch.distributed",
    "torch.distributed.elastic.multiprocessing.errors",
    "torch.nn.parallel",
    "torch.optim",
    "torch.utils.data",
    "torch.utils.tensorboard",
    "prometheus_client",
    "inception_trainer.data.digits",
    "inception_trainer.data.synthetic",
    "inception_trainer.train.build",
    "inception_trainer.entry",
)
"""Modules of the trainer and what they import; those that are not installed are skipped."""

settings.prepare()
