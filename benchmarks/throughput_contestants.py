"""Of benchmarks/throughput.py and benchmarks/gpu.py: the same training step by the trainer, by a
plain PyTorch loop and by a loop in the manner of timm's train.py.

Every contestant is a function that makes one step. Nothing in it waits for the device: whoever
takes the time waits at both ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inception_trainer import device, models
from inception_trainer.comm import Comm
from inception_trainer.config.normalization import IMAGENET
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import TrainingConfig, from_mapping
from inception_trainer.data import Batch
from inception_trainer.data.sampler import batch_plan
from inception_trainer.device import transfers
from inception_trainer.train.network import prepare_for_training
from inception_trainer.train.step import Normalise, OptimizerStep, TrainStep

TORCHVISIONS = {"inception_v3": "inception_v3", "resnet50": "resnet50"}
TIMMS = ("inception_v3", "inception_v4", "resnet50")
"""Networks that torchvision and timm have as well; the others run with ours in every loop."""
RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-4
CLASSES = 1000
Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """One training step that all contestants make."""

    network: str
    side: int
    """Of the images, in pixels."""
    batch: int
    precision: str
    """``FP32``, ``TF32``, ``BF16`` or ``FP16``."""
    device: str = "cpu"
    execution: str = "Eager"

    def configuration(self) -> TrainingConfig:
        """What the trainer is told; raises ConfigError where it has no such precision."""
        data = {
            "kind": "Synthetic",
            "imageSize": self.side,
            "numClasses": CLASSES,
            "samples": self.batch,
        }
        optimizer = {"learningRate": RATE, "momentum": MOMENTUM, "weightDecay": DECAY}
        return from_mapping(
            {
                "model": {"name": self.network},
                "loss": {"auxiliaryWeight": 0},
                "data": data,
                "batch": {"global": self.batch},
                "optimizer": optimizer,
                "precision": self.precision,
                "execution": self.execution,
                "accelerator": {"device": self.device, "profile": self.device},
            }
        )

    def batch_of_bytes(self) -> Batch:
        """The images in host memory, pinned where the device copies on its own."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, 3, self.side, self.side)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        batch = Batch(images, torch.arange(self.batch) % CLASSES)
        if not transfers.has_async_copy(torch.device(self.device)):
            return batch
        return Batch(batch.images.pin_memory(), batch.labels.pin_memory())

    def autocast(self) -> AbstractContextManager[object]:
        kind = torch.float16 if self.precision == "FP16" else torch.bfloat16
        return torch.autocast(self.device, kind, enabled=self.precision in ("BF16", "FP16"))

    def prepared(self, model: nn.Module) -> nn.Module:
        """A network of somebody else's loop: on the device, channels last, compiled if asked."""
        model = model.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if self.execution == "Compiled":
            model = torch.compile(model)  # type: ignore[assignment]
        return model

    def allow_tf32(self) -> None:
        """FP32 means FP32 in all loops: convolutions would take TF32 by torch's own default."""
        allowed = self.precision != "FP32"
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed


def foreign(network: str) -> nn.Module:
    """Torchvision's or timm's model of the same shape, ours where they have none."""
    if network in TORCHVISIONS:
        import torchvision

        if network == "inception_v3":
            return torchvision.models.inception_v3(aux_logits=False, init_weights=False)  # type: ignore[no-any-return]
        return torchvision.models.resnet50()  # type: ignore[no-any-return]
    if network in TIMMS:
        import timm

        made: nn.Module = timm.create_model(network, num_classes=CLASSES)
        return made
    return models.create(network, CLASSES)


def plain_loop(model: nn.Module, case: Case) -> Step:
    """What people write: normalise, forward, cross entropy, backward, SGD; channels_last as in the
    trainer.
    """
    case.allow_tf32()
    batch = case.batch_of_bytes()
    model = case.prepared(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    scaler = torch.amp.GradScaler(case.device, enabled=case.precision == "FP16")
    mean, std = (
        torch.tensor(values, device=case.device).view(1, 3, 1, 1)
        for values in (IMAGENET.mean, IMAGENET.std)
    )

    def step() -> None:
        images = batch.images.to(case.device, non_blocking=True)
        labels = batch.labels.to(case.device, non_blocking=True)
        images = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        with case.autocast():
            logits: Tensor = model(images)
        loss = functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        torch.autograd.backward(scaler.scale(loss))
        scaler.step(optimizer)
        scaler.update()

    return step


def timms_loop(case: Case) -> Step:
    """The step of timm's train.py with timm's own parts: PrefetchLoader copies and normalises,
    create_optimizer_v2 makes the optimizer, NativeScaler scales.

    Raises ImportError where timm is not installed.
    """
    import timm.data.loader
    import timm.optim
    import timm.utils

    case.allow_tf32()
    torch.backends.cudnn.benchmark = True  # as in train.py
    network = (
        timm.create_model(case.network, num_classes=CLASSES)
        if case.network in TIMMS
        else models.create(case.network, CLASSES)
    )
    model = case.prepared(network)
    optimizer = timm.optim.create_optimizer_v2(
        model, opt="sgd", lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
    )
    endless: Any = itertools.repeat(case.batch_of_bytes().tensors())
    loader = timm.data.loader.PrefetchLoader(
        endless, IMAGENET.mean, IMAGENET.std, device=torch.device(case.device)
    )
    batches = iter(loader)
    scaler = timm.utils.NativeScaler(case.device) if case.precision == "FP16" else None

    def step() -> None:
        images, labels = next(batches)
        images = images.contiguous(memory_format=torch.channels_last)
        with case.autocast():
            loss = functional.cross_entropy(model(images), labels)
        if scaler is not None:
            scaler(loss, optimizer, parameters=model.parameters())
        else:
            torch.autograd.backward(loss)
            optimizer.step()
        optimizer.zero_grad()

    return step


def trainers_step(
    case: Case, make: type[TrainStep] = TrainStep, model: nn.Module | None = None
) -> TrainStep:
    """The trainer's own step, with the network of the case or with another one."""
    config = case.configuration()
    accelerator = device.resolve(
        config.accelerator, case.precision, Settings(threads=torch.get_num_threads())
    )
    model = model or models.create(case.network, CLASSES)
    model = model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    updater = OptimizerStep(config, model, accelerator)
    plan, comm = batch_plan(config.batch, 1), Comm(0, 1, "gloo")
    trained = prepare_for_training(model, config.execution, accelerator, comm, plan.micro_batches)
    normalise = Normalise(IMAGENET, accelerator.device)
    return make(trained, updater, accelerator, normalise, plan, config, comm)


def trainers_loop(case: Case) -> Step:
    batch, stepper = case.batch_of_bytes(), trainers_step(case)
    done = 0

    def step() -> None:
        nonlocal done
        stepper.step(iter([batch]), done, RATE)
        done += 1

    return step


def contestant(name: str, case: Case) -> Step:
    """The loop of this name: ``trainer``, ``timm``, ``plain`` with our network, or ``reference``,
    the plain loop with somebody else's.
    """
    torch.manual_seed(0)
    if name == "trainer":
        return trainers_loop(case)
    if name == "timm":
        return timms_loop(case)
    model = foreign(case.network) if name == "reference" else models.create(case.network, CLASSES)
    return plain_loop(model, case)
