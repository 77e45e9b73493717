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
    """Where and how often the state of the training is saved; without a path it never is."""

    path: str | None = key(None)
    every_steps: int | None = key(None, at_least=1)
    # By time too, because a step may take a millisecond or a minute.
    every_seconds: float = key(60.0, at_least=0)
    keep: int = key(3, at_least=1)
    # Copies in the shared memory of the pod, besides: also without a path. Not "Off", which YAML
    # reads as false.
    memory: str = key("Auto", choices=("Auto", "Never"))


@dataclass(frozen=True)
class OutputConfig:
    """Where summary, curves and TensorBoard files go."""

    path: str | None = key(None)


@dataclass(frozen=True)
class AcceleratorConfig:
    """One row of the operator's table of accelerators; ``device.choice`` finds what is left out."""

    profile: str | None = key(None)
    module: str | None = key(None)
    device: str | None = key(None)
    backend: str | None = key(None)
    precision_rule: str | None = key(None, choices=PRECISION_RULES)
    # Names of variables such as CUDA_VISIBLE_DEVICES: only shown in errors, never set.
    visible: tuple[str, ...] = key(())
    devices: int | None = key(None, at_least=1)
