"""A device plugin for accelerators that are not there: pods get counted devices and the vendor's
variable.
"""

from __future__ import annotations

from pathlib import Path

from localcluster.model import DeviceSpec, Layout

# What the vendors' own plug-ins or runtimes set in a container, by resource name. Where they only
# mount device files it is the variable of the vendor's library, so that a test can see which
# devices a container got.
VISIBLE_VARIABLES = {
    "amd.com/gpu": "HIP_VISIBLE_DEVICES",
    "aws.amazon.com/neuroncore": "NEURON_RT_VISIBLE_CORES",
    "cambricon.com/mlu": "MLU_VISIBLE_DEVICES",
    "enflame.com/gcu": "ENFLAME_VISIBLE_DEVICES",
    "gpu.intel.com/xe": "ZE_AFFINITY_MASK",
    "habana.ai/gaudi": "HABANA_VISIBLE_DEVICES",
    "huawei.com/Ascend910": "ASCEND_VISIBLE_DEVICES",
    "hygon.com/dcu": "HIP_VISIBLE_DEVICES",
    "iluvatar.com/gpu": "IX_VISIBLE_DEVICES",
    "kunlunxin.com/xpu": "XPU_VISIBLE_DEVICES",
    "metax-tech.com/gpu": "MACA_VISIBLE_DEVICES",
    "mthreads.com/gpu": "MTHREADS_VISIBLE_DEVICES",
    "nvidia.com/gpu": "NVIDIA_VISIBLE_DEVICES",
}


def visible_variable(device: DeviceSpec) -> str:
    """Environment variable with the indices of a container's devices; VENDOR_VISIBLE_DEVICES for
    unknown resources.
    """
    vendor = device.resource.partition(".")[0].upper().replace("-", "_")
    default = VISIBLE_VARIABLES.get(device.resource, f"{vendor}_VISIBLE_DEVICES")
    return device.visible_variable or default


def slug(resource: str) -> str:
    """The resource name as a file name."""
    return resource.lower().replace("/", "-")


def unhealthy_file(layout: Layout, resource: str) -> Path:
    """A test writes the indices of broken devices here, separated by white space; no file means all
    are healthy.
    """
    return unhealthy_folder(layout) / f"{slug(resource)}.unhealthy"


def unhealthy_folder(layout: Layout) -> Path:
    """Where these files lie."""
    return layout.root / "run" / "devices"
