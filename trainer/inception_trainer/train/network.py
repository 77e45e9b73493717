"""Builds the network of a run: initial or saved weights, batch norm over ranks, device, ranks.

The one place for it: training, mode Benchmark and mode Infer (for a random network) come here;
a trained network out of a file is opened by ``weights/trained.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from inception_trainer import models
from inception_trainer.comm import Comm
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Splits
from inception_trainer.device import Accelerator, image_format
from inception_trainer.errors import ConfigError
from inception_trainer.weights.layouts import AUXILIARY
from inception_trainer.weights.load import WeightsSource, load_weights, local_file
from inception_trainer.weights.pickles import may_unpickle

from .compiling import compile_if_asked
from .freezing import freeze
from .syncnorm import synchronize_batch_norms

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
FEWEST_VALUES = 2
"""Per channel: fewer have no variance."""


def build_network(
    config: TrainingConfig,
    classes: int,
    comm: Comm,
    device: torch.device,
    *,
    saved: Mapping[str, Tensor] | None = None,
    resumes: bool = False,
    source: int = 0,
    auxiliary: bool = True,
) -> tuple[nn.Module, WeightsSource | None]:
    """The network of ``model.name`` on ``device``, channels last, equal on all ranks.

    Its weights are those of ``saved`` when the job ``resumes`` (only rank ``source`` has them),
    else those of ``model.weights``, else random ones that depend on the seed alone. Without
    ``auxiliary`` it lacks the head that only training uses. Also returns what is known of the file
    of weights, None where none was read. Every rank must call it.
    """
    if comm.is_first and not resumes:
        torch.manual_seed(config.seed)
        network = _create(config, classes, auxiliary)
    else:
        # No initial values where others take their place: they cost seconds, a large network's
        # truncated normal numbers most of all.
        network = models.without_values(
            config.model.name, lambda: _create(config, classes, auxiliary)
        )
        if saved is None:
            models.with_memory(network)
        else:
            network.load_state_dict(saved, assign=True)
    loaded = None
    if config.model.weights is not None and not resumes:
        loaded = _load(network, config, comm)
    if config.model.batch_norm == "Synchronized" and comm.world_size > 1:
        synchronize_batch_norms(network, device)
    # After it: a norm that is frozen stays so on any number of ranks.
    freeze(network, config.model)
    network.to(device, memory_format=image_format(device))  # type: ignore[call-overload]
    comm.broadcast_tensors([*network.parameters(), *network.buffers()], source)
    return network, loaded


def empty_network(config: TrainingConfig, classes: int, device: torch.device) -> nn.Module:
    """The same network as training has, on ``device``, with whatever its memory holds as
    weights.
    """
    name = config.model.name
    network = models.without_values(name, lambda: _create(config, classes, auxiliary=True))
    models.with_memory(network, device)
    network.to(memory_format=image_format(device))
    return network


def _create(config: TrainingConfig, classes: int, auxiliary: bool) -> nn.Module:
    network = models.create(
        config.model.name,
        classes,
        auxiliary=auxiliary and bool(config.loss.auxiliary_weight),
        dropout=config.model.dropout,
        initialization=config.model.initialization,
    )
    models.set_batch_norm(
        network, config.model.batch_norm_epsilon, config.model.batch_norm_momentum
    )
    return network


def _load(network: nn.Module, config: TrainingConfig, comm: Comm) -> WeightsSource:
    """Rank 0 reads ``model.weights`` into the network; all ranks raise what that raises."""
    source = config.model.weights
    assert source is not None  # noqa: S101 - asked before
    name = models.canonical(config.model.name)
    new_classifier = config.model.classifier == "New"

    def load() -> WeightsSource:
        return load_weights(
            network,
            name,
            local_file(source),
            new_classifier=new_classifier,
            may_unpickle=may_unpickle(config),
            kind=config.model.weights_kind,
        )

    return comm.from_first(load)


def check_batch_norms(
    network: nn.Module, config: TrainingConfig, world_size: int, micro_batch: int
) -> None:
    """Raise ConfigError where a batch norm that trains would see a single value per channel of a
    micro-batch, before the first step would.

    The mean of one value is that value, so torch refuses it. Which layers have one depends on the
    network, its head and the size of its images: they are looked at by shapes alone.
    """
    is_synchronized = config.model.batch_norm == "Synchronized" and world_size > 1
    if micro_batch > 1 or is_synchronized:
        return
    side = config.data.image_size
    names = {module: name for name, module in network.named_modules()}

    def check(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].numel() // inputs[0].shape[1]
        if norm.training and values < FEWEST_VALUES:
            raise ConfigError(_too_few_values(config, names[norm]))

    hooks = [norm.register_forward_pre_hook(check) for norm in names if isinstance(norm, NORMS)]
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    try:
        with torch.no_grad():
            images = torch.empty(micro_batch, 3, side, side, device="meta")
            torch.func.functional_call(network, shapes, (images,))
    finally:
        for hook in hooks:
            hook.remove()


def _too_few_values(config: TrainingConfig, norm: str) -> str:
    remedies = ["set it to 2 or more, or leave it out"]
    if norm.startswith(AUXILIARY):
        remedies.append('set loss.auxiliaryWeight to "0" to train without the auxiliary head')
    else:
        remedies.append("choose a larger data.imageSize")
    remedies.append("with several ranks set model.batchNorm to Synchronized")
    return (
        f"batch.perDevice: {config.batch.per_device or config.batch.global_} leaves the batch norm "
        f"{norm} of {config.model.name} a single value per channel at data.imageSize "
        f"{config.data.image_size}, which has no variance; {', or '.join(remedies)}"
    )


def count_classes(config: TrainingConfig, splits: Splits) -> int:
    """How many outputs the network has: one for each class of the data, or more where
    ``data.numClasses`` asks for them.
    """
    return max(splits.num_classes, config.data.num_classes or 0)


def count_parameters(network: nn.Module) -> int:
    """The number of trained values of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def prepare_for_training(
    network: nn.Module, execution: str, accelerator: Accelerator, comm: Comm, micro_batches: int
) -> nn.Module:
    """What training calls in place of the bare network: compiled where asked, and with several
    ranks inside DistributedDataParallel, which averages gradients while backward still runs.
    """
    network = compile_if_asked(network, execution, accelerator.device)
    return wrap_for_ranks(network, accelerator, comm, micro_batches)


def wrap_for_ranks(
    network: nn.Module, accelerator: Accelerator, comm: Comm, micro_batches: int
) -> nn.Module:
    """``network``, with several ranks inside DistributedDataParallel; its weights must be equal on
    all ranks.
    """
    if comm.world_size == 1:
        return network
    return DistributedDataParallel(
        network,
        device_ids=accelerator.device_ids,
        **_arguments_of_this_torch(),
        gradient_as_bucket_view=True,
        # With several micro-batches the first ones run without synchronisation, so the graph that
        # the reducer sees is not the same in every pass.
        static_graph=micro_batches == 1,
    )


def _arguments_of_this_torch() -> dict[str, Any]:
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    # torch 2.15 renamed the argument; both names leave the batch norm statistics of each rank alone
    # while it trains.
    statistics = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    arguments: dict[str, Any] = {statistics: False}
    # The weights were broadcast when the network was built, so a second time is saved where torch
    # has a word for it.
    if "init_sync" in known:
        arguments["init_sync"] = False
    return arguments
