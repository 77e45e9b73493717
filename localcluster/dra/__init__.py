"""A DRA driver for accelerators that are not there: pods claim devices of a class and get the
vendor's variable.
"""

from __future__ import annotations

from pathlib import Path

from localcluster.model import DriverSpec, Layout


def visible_variable(driver: DriverSpec) -> str:
    """Environment variable with the indices of a claim's devices; VENDOR_VISIBLE_DEVICES unless the
    spec names one.
    """
    vendor = driver.name.partition(".")[0].upper().replace("-", "_")
    return driver.visible_variable or f"{vendor}_VISIBLE_DEVICES"


def unhealthy_file(layout: Layout, driver: str) -> Path:
    """A test writes the indices of broken devices here, separated by white space; no file means all
    are healthy.
    """
    return layout.root / "run" / "devices" / f"{driver}.unhealthy"
