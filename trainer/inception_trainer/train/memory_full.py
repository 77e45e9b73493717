"""What to say, and how to end, when a device has no memory left for a training step.

The same batch on the same device would end the next attempt like this one, so the operator must not
begin it. Unless something else took the memory: what fits is tried once more when the training has
let go of its own.
"""

from __future__ import annotations

import gc

from torch import nn

from inception_trainer.config.training import TrainingConfig
from inception_trainer.data.sampler import BatchPlan
from inception_trainer.device import Accelerator
from inception_trainer.errors import DeviceMemoryTaken, DeviceOutOfMemory, TrainerError
from inception_trainer.log import logger

from .fitting import Trial, is_out_of_memory, largest
from .loop import TrainingRun
from .network import count_classes, empty_network

MOST_WORDS = 300
"""Characters of the device's own message, which may list every block of its memory."""


def is_meant(error: RuntimeError, accelerator: Accelerator) -> bool:
    """Whether the device has said that its memory is full."""
    return not accelerator.is_cpu and is_out_of_memory(error)


def of_network(config: TrainingConfig, accelerator: Accelerator, words: str) -> TrainerError:
    """The error that ends a run for whose network alone there is no room."""
    return DeviceOutOfMemory(
        f"{_memory(accelerator)} does not hold {config.model.name} and its optimizer, without any "
        f"image: choose a smaller network or another device ({_short(words)})"
    )


def of_training(training: TrainingRun, words: str) -> TrainerError:
    """The error that ends a training whose device said that its memory is full, in these ``words``.

    The training cannot go on after it. To be called where no exception holds tensors any more.
    """
    own = training.batch.largest_micro_batch
    fitting = _seek(training, own)
    batch = (
        f"a training step of {own} images of {training.config.data.image_size} px at once "
        f"({training.accelerator.precision})"
    )
    if fitting is not None and fitting >= own:
        return DeviceMemoryTaken(
            f"{_memory(training.accelerator)} was full in the middle of training, and {batch} "
            f"would fit now: look for what else uses the device ({_short(words)})"
        )
    return DeviceOutOfMemory(
        f"{_memory(training.accelerator)} does not hold {batch}; {_remedy(training, fitting)} "
        f"({_short(words)})"
    )


def of_mode(
    config: TrainingConfig, accelerator: Accelerator, batch: int, words: str
) -> TrainerError:
    """The same for the other modes, of which nothing is tried again; a rank takes ``batch`` images
    at once.
    """
    remedy = f"choose a batch.perDevice below {batch}"
    if config.mode == "Benchmark":
        remedy += ", or benchmark.batch Largest, which finds the one that fits"
    if config.inference.batch_sizes:
        remedy += ", and smaller inference.batchSizes"
    return DeviceOutOfMemory(
        f"{_memory(accelerator)} does not hold {batch} images at once in mode {config.mode}; "
        f"{remedy} ({_short(words)})"
    )


def _remedy(training: TrainingRun, fitting: int | None) -> str:
    plan = training.batch
    if fitting is None:
        return f"set batch.perDevice to less than {plan.largest_micro_batch}"
    if not fitting:
        return (
            "not even 2 fit: choose a smaller network or smaller images, or precision BF16 where "
            "the device has it"
        )
    advised = advised_per_device(plan, fitting)
    if advised is None:
        unit = fitting * plan.world_size
        return (
            f"{fitting} fit: set batch.perDevice to {fitting} and batch.global to a multiple of "
            f"{unit}"
        )
    times = plan.global_batch // (advised * plan.world_size)
    return (
        f"{fitting} fit: set batch.perDevice to {advised}, of which {times} make one step of the "
        "same global batch"
    )


def advised_per_device(plan: BatchPlan, fitting: int) -> int | None:
    """The largest micro-batch of at most ``fitting`` images that divides a rank's part of a step;
    None where the part cannot be divided so.
    """
    if plan.global_batch % plan.world_size:
        return None
    part = plan.global_batch // plan.world_size
    sizes = (size for size in range(min(fitting, part), 1, -1) if part % size == 0)
    return next(sizes, None)


def _seek(training: TrainingRun, own: int) -> int | None:
    """The largest micro-batch up to ``own`` that fits, 0 where not even two images do; None where
    that cannot be found out.
    """
    ranks = training.comm.world_size
    if ranks > 1 and training.config.model.batch_norm == "Synchronized":
        # A rank that tries alone would wait for the means of the others for ever.
        return None
    logger.info("the device's memory is full: looking for the batch that fits")
    try:
        trial = Trial(
            training.config,
            _anew(training),
            training.accelerator,
            # The buckets for gradients of several ranks are still there.
            1,
            training.heartbeat,
        )
        if trial.fits(own):
            return own
        return largest(lambda size: size < own and trial.fits(size))
    except Exception as error:
        if is_out_of_memory(error):
            # Not even of the network and its optimizer, beside what others hold.
            return 0
        # Whatever goes wrong here must not hide what went wrong before.
        logger.warning("no batch was found: %s: %s", type(error).__name__, error)
        return None


def _anew(training: TrainingRun) -> nn.Module:
    """Such a network as the training's, once the tensors of that have been released: the hooks of
    several ranks hang on its own parameters.
    """
    config = training.config
    training.state.release()
    gc.collect()
    training.accelerator.release_memory()
    classes = count_classes(config, training.splits)
    return empty_network(config, classes, training.accelerator.device)


def _memory(accelerator: Accelerator) -> str:
    total = accelerator.figures().memory_total_bytes
    size = f" ({total / 2**30:.1f} GiB)" if total else ""
    return f"the memory of this {accelerator.device.type} device{size}"


def _short(words: str) -> str:
    text = " ".join(words.split())
    return text if len(text) <= MOST_WORDS else f"{text[: MOST_WORDS - 1]}…"
