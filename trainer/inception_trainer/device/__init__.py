"""The accelerator of this process: the only package that knows device types, their plug-ins and
collective back ends.

``choice`` finds out which device is meant, ``table`` what is special about it, ``plugins`` imports
what it needs, ``accelerator`` takes this rank's device, ``precision`` and ``scaling`` know the
number formats, ``numerics`` settles how FP32 is multiplied, ``figures`` reads memory, load and
health, ``clock`` takes the times of steps, ``transfers`` knows which devices copy beside their
computations, ``layout`` how images lie in their memory, ``hostmemory`` suits the CPU's allocator to
training. Of the rest of the trainer it needs config, log, comm and errors only.
"""

from .accelerator import Accelerator, of_ranks, resolve, supports_fused_sgd, threads_per_rank
from .clock import StepClock, StepTimes
from .figures import Figures
from .layout import image_format
from .scaling import loss_scaler

__all__ = [
    "Accelerator",
    "Figures",
    "StepClock",
    "StepTimes",
    "image_format",
    "loss_scaler",
    "of_ranks",
    "resolve",
    "supports_fused_sgd",
    "threads_per_rank",
]
