"""The accelerator of this process: the only package that knows device types, their plug-ins and
collective back ends.

``choice`` finds out which device is meant, ``plugins`` imports what it needs, ``accelerator`` takes
this rank's device, ``precision`` and ``scaling`` know the number formats, ``figures`` reads memory,
load and health, ``transfers`` knows which devices copy on their own, ``hostmemory`` suits the CPU's
allocator to training.
"""

from .accelerator import Accelerator, resolve, supports_fused_sgd, threads_per_rank
from .figures import Figures, of_ranks
from .scaling import loss_scaler

__all__ = [
    "Accelerator",
    "Figures",
    "loss_scaler",
    "of_ranks",
    "resolve",
    "supports_fused_sgd",
    "threads_per_rank",
]
