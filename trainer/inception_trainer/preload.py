"""Lists the modules that the launcher imports before it forks the ranks: everything heavy, nothing
that starts a thread or a device.

Importing this module prepares the environment (OpenMP reads it when torch is loaded), so import it
before torch; then import :func:`modules` in their order, skipping what is not installed.
"""

from __future__ import annotations

from .config import settings
from .config.data import IN_MEMORY
from .config.training import TrainingConfig, load
from .stores import is_url

MODULES: tuple[str, ...] = (
    "numpy",
    "numpy.ma",
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
DECODERS = ("inception_trainer.data.pillow",)
"""What decodes files of images: its import takes time, which every attempt would pay anew."""
OF_DATA = {
    "Cifar10": ("inception_trainer.data.cifar",),
    "Cifar100": ("inception_trainer.data.cifar",),
    "ImageFolder": ("inception_trainer.data.imagefolder", *DECODERS),
    "ImageList": ("inception_trainer.data.imagelist", *DECODERS),
    "WebDataset": ("inception_trainer.data.shards", *DECODERS),
}
"""By ``data.kind``, what jobs with other data do without."""


def modules() -> tuple[str, ...]:
    """:data:`MODULES`, and what the job needs besides that this pod belongs to."""
    config = _config()
    if config is None:
        return MODULES
    return (*MODULES, *OF_DATA.get(config.data.kind, ()), *_of_mode(config), *_of_stores(config))


def reserve() -> None:
    """Make what all ranks of this pod share, in this attempt and in those that follow; called after
    the modules are imported, in the process that ranks are forked from.
    """
    config = _config()
    if config is not None and config.data.kind not in IN_MEMORY:
        from .data import cache

        cache.reserve(config.data.cache)


def _config() -> TrainingConfig | None:
    try:
        environment = settings.from_environment()
        return load(environment.config_json, image_folder=environment.image_folder)
    except Exception:
        # Its ranks will say what is wrong with it.
        return None


def _of_mode(config: TrainingConfig) -> tuple[str, ...]:
    return () if config.mode == "Train" else (f"inception_trainer.modes.{config.mode.lower()}",)


def _of_stores(config: TrainingConfig) -> tuple[str, ...]:
    paths = (config.data.path, config.checkpoint.path, config.output.path, config.model.weights)
    protocols = {path.partition("://")[0] for path in paths if path is not None and is_url(path)}
    if not protocols:
        return ()
    from fsspec.registry import known_implementations

    classes = [known_implementations.get(protocol, {}).get("class") for protocol in protocols]
    opened = ("fsspec.core", "fsspec.implementations.chained")
    return (*opened, *sorted(name.rpartition(".")[0] for name in classes if name))


settings.prepare()
