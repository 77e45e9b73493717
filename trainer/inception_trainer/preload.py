"""What the launcher imports before it forks the ranks: everything heavy, nothing that starts a thread or a device.

Call :func:`load` (it also prepares the environment, which must happen before torch is imported), or import
:data:`MODULES` in their order.
"""

from __future__ import annotations

import importlib

from inception_trainer import settings

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
    "inception_trainer.session",
    "inception_trainer.entry",
)
"""Modules of the trainer and what they import; those that are not installed are skipped."""


def load() -> tuple[str, ...]:
    """Import :data:`MODULES`; returns the names of those that could not be imported."""
    settings.prepare()
    missing = []
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return tuple(missing)
