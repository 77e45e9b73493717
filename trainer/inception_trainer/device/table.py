"""What the trainer knows of torch's device types by itself.

Plug-in, device type, back end and precision rule repeat the rows of the operator
(``operator/inception_operator/accelerators/profiles/*.yaml``), because the trainer also runs
without an operator and neither package imports the other. In a job of the operator its row comes
first: it is handed over in the configuration. tests/trainer/test_device.py holds both equal. What
only the trainer needs (companions, choosers, markers) is here alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CPU = "cpu"


@dataclass(frozen=True)
class DeviceType:
    """One device type. What is left out is as with CUDA: functions in ``torch.<type>``, a number
    per device.
    """

    module: str | None
    """The plug-in that adds the type; None: torch itself has it."""
    backend: str
    """Collective back end."""
    rule: str
    """Meaning of ``precision: Auto``, a value of ``accelerator.precisionRule``."""
    visible: tuple[str, ...] = ()
    """Variables that choose or hide devices."""
    companions: tuple[str, ...] = ()
    """Modules imported after the plug-in; they register the collective back end."""
    functions: str | None = None
    """The module with the device functions, where that is not ``torch.<type>``."""
    chooser: tuple[str, str] | None = None
    """Module and function that give the process its device, in place of ``set_device``; such a
    device has no number.
    """
    marker: tuple[str, str] | None = None
    """Module and function that send a step to a device which collects operations first."""
    seeder: tuple[str, str] | None = None
    """Module and function that begin the random numbers of a device which ``torch.manual_seed``
    does not know.
    """
    fp32_variables: Mapping[str, str] = field(default_factory=dict)
    """What makes FP32 mean FP32; set before the plug-in is imported."""


TYPES: Mapping[str, DeviceType] = {
    CPU: DeviceType(None, "gloo", "CPUFlags"),
    "cuda": DeviceType(
        None, "nccl", "ComputeCapability", ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
    ),
    "xpu": DeviceType(None, "xccl", "BF16", ("ZE_AFFINITY_MASK",)),
    "mlu": DeviceType(
        "torch_mlu", "cncl", "AskDevice", ("MLU_VISIBLE_DEVICES", "CAMBRICON_VISIBLE_DEVICES")
    ),
    "npu": DeviceType(
        "torch_npu", "hccl", "AskDevice", ("ASCEND_RT_VISIBLE_DEVICES", "ASCEND_VISIBLE_DEVICES")
    ),
    # Its bf16 is emulated and clips; convolutions compute in fp16 unless they are told not to.
    "sdaa": DeviceType(
        "torch_sdaa",
        "tccl",
        "FP16",
        ("SDAA_VISIBLE_DEVICES",),
        fp32_variables={"TORCH_SDAA_CONV_USE_FP32": "1"},
    ),
    "musa": DeviceType(
        "torch_musa", "mccl", "AskDevice", ("MUSA_VISIBLE_DEVICES", "MTHREADS_VISIBLE_DEVICES")
    ),
    "gcu": DeviceType(
        "torch_gcu", "eccl", "AskDevice", ("TOPS_VISIBLE_DEVICES", "ENFLAME_VISIBLE_DEVICES")
    ),
    # Collects operations and runs them at the end of a step, as XLA below does.
    "hpu": DeviceType(
        "habana_frameworks.torch",
        "hccl",
        "BF16",
        ("HABANA_VISIBLE_MODULES", "HABANA_VISIBLE_DEVICES"),
        companions=("habana_frameworks.torch.core", "habana_frameworks.torch.distributed.hccl"),
        chooser=("habana_frameworks.torch.distributed.hccl", "initialize_distributed_hpu"),
        marker=("habana_frameworks.torch.core", "mark_step"),
        seeder=("habana_frameworks.torch.hpu", "manual_seed_all"),
    ),
    "xla": DeviceType(
        "torch_xla",
        "xla",
        "BF16",
        ("NEURON_RT_VISIBLE_CORES",),
        companions=("torch_xla.core.xla_model", "torch_xla.distributed.xla_backend"),
        functions="torch_xla.core.xla_model",
        chooser=("torch_xla.core.xla_model", "xla_device"),
        marker=("torch_xla.core.xla_model", "mark_step"),
        seeder=("torch_xla.core.xla_model", "set_rng_state"),
    ),
}
"""By device type. Six vendors say ``cuda``: what differs between them is in :data:`RULES` or comes
with the row.
"""

RULES: Mapping[str, str] = {
    "amd": "BF16",
    "hygon": "AskDevice",
    "iluvatar": "AskDevice",
    "metax": "AskDevice",
    "kunlunxin": "AskDevice",
}
"""``precision: Auto`` by profile, for vendors that present their devices as CUDA."""


def of(device: str) -> DeviceType | None:
    """Look up a device type of torch; None for one that is not in the table."""
    return TYPES.get(device)
