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
from inception_trainer.device import Accelerator
from inception_trainer.weights.load import WeightsSource, load_weights, local_file
from inception_trainer.weights.pickles import may_unpickle

from .compiling import compile_if_asked
from .syncnorm import synchronize_batch_norms


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
        with torch.device("meta"):
            network = _create(config, classes, auxiliary)
        if saved is None:
            network.to_empty(device="cpu")
        else:
            network.load_state_dict(saved, assign=True)
    loaded = None
    if config.model.weights is not None and not resumes:
        loaded = _load(network, config, comm)
    if config.model.batch_norm == "Synchronized" and comm.world_size > 1:
        synchronize_batch_norms(network, device)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    comm.broadcast_tensors([*network.parameters(), *network.buffers()], source)
    return network, loaded


def empty_network(config: TrainingConfig, classes: int, device: torch.device) -> nn.Module:
    """The same network as training has, on ``device``, with whatever its memory holds as
    weights.
    """
    with torch.device("meta"):
        network = _create(config, classes, auxiliary=True)
    network.to_empty(device=device)
    network.to(memory_format=torch.channels_last)
    return network


def _create(config: TrainingConfig, classes: int, auxiliary: bool) -> nn.Module:
    return models.create(
        config.model.name,
        classes,
        auxiliary=auxiliary and bool(config.loss.auxiliary_weight),
        dropout=config.model.dropout,
    )


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
        )

    return comm.from_first(load)


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
