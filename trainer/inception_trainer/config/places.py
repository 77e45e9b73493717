"""The sections that the operator fills in from other fields of ``spec``: ``checkpoint``, ``output``
and ``accelerator``.

They are keys of the trainer's own file, and no part of ``spec.training``.
"""

from __future__ import annotations

from dataclasses import dataclass

from .declare import key

PRECISION_RULES = ("FP32", "BF16", "FP16", "ComputeCapability", "AskDevice", "CPUFlags")
"""How ``precision: Auto`` is decided on a kind of device (``device`` knows what they mean)."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoint is where and how often the state of the training is saved; without a path it never
    is. In the cluster it comes from spec.checkpoint.
    """

    path: str | None = key(None)
    """Path is the directory of this job alone, or its URL in an object store. Without it nothing is
    saved.
    """

    every_steps: int | None = key(None, at_least=1)
    """EverySteps saves after every so many optimizer steps."""

    every_epochs: int | None = key(None, at_least=1)
    """EveryEpochs saves at the end of every so many epochs."""

    # By time too, because a step may take a millisecond or a minute.
    every_seconds: float = key(60.0, at_least=0)
    """EverySeconds saves when so many seconds have passed since the last checkpoint. The default is
    60; 0 saves none by time.
    """

    keep: int = key(3, at_least=1)
    """Keep is how many of the latest checkpoints stay, beside the best one. The default is 3."""

    keep_every_epochs: int | None = key(None, at_least=1)
    """KeepEveryEpochs saves at the end of every so many epochs and never removes these checkpoints,
    which are called epoch-000010.pt and the like.
    """

    # Copies in the shared memory of the pod, besides: also without a path. Not "Off", which YAML
    # reads as false.
    memory: str = key("Auto", choices=("Auto", "Never"))
    """Memory says whether copies of the state are kept in the shared memory of the pods of the
    operator, from which a restart goes on at the last finished step. Auto, the default, does; Never
    does not.
    """


@dataclass(frozen=True)
class OutputConfig:
    """Output is where summary, curves and TensorBoard files go."""

    path: str | None = key(None)
    """Path is a directory, or its URL in an object store. The default is the directory output below
    checkpoint.path.
    """


@dataclass(frozen=True)
class AcceleratorConfig:
    """Accelerator is the device to compute on; what is left out is found out. In the cluster it
    comes from the row of the operator's table that spec.accelerator names.
    """

    profile: str | None = key(None)
    """Profile is the name of the row of the operator's table, which metrics and logs show."""

    module: str | None = key(None)
    """Module is the plug-in of the vendor for PyTorch that is imported first, such as torch_npu."""

    device: str | None = key(None)
    """Device is the type of the device as PyTorch calls it, such as cuda, npu or cpu. Without it
    the one that PyTorch finds is taken. One that is asked for is never replaced by another.
    """

    backend: str | None = key(None)
    """Backend is the library in which ranks talk to one another, such as nccl, hccl or gloo. The
    default is that of the device.
    """

    precision_rule: str | None = key(None, choices=PRECISION_RULES)
    """PrecisionRule is what precision Auto means on the device: a precision, or how to ask for it.
    """

    visible: tuple[str, ...] = key(())
    """Visible are names of variables, such as CUDA_VISIBLE_DEVICES, that hide devices. They are
    shown in errors and never set.
    """

    devices: int | None = key(None, at_least=1)
    """Devices is how many the pod was given. Another number in PyTorch is an error."""
