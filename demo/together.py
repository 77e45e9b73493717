"""A cold start of the demo's own cluster: whatever can be made at the same time is.

Compiling needs the processors, wheels and Debian packages need the network, images need disk and
processors. One after the other they take half as long again.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from functools import partial
from pathlib import Path

from demo.images import IMAGES, Progress, base_of, build_local_image, local_wheels
from localcluster import components, node, toolchain
from localcluster.cluster import Cluster
from localcluster.images import ensure_base_archive
from localcluster.model import ClusterSpec

BUILDER = ClusterSpec(name="demo-images", flavour="image-builder")


def make_all(programs: Sequence[str], built_images: set[str], say: Progress) -> None:
    """Build the programs and both images; the first part that fails ends the others and is raised.

    An image that is ready is noted in `built_images`.
    """
    # Before the threads start: two package managers at once get in each other's way.
    toolchain.ensure_packages(node.debian_packages(), say)
    components.install_tools(components.select(programs), say)
    run_together(
        [
            partial(build_programs_and_images, programs, built_images, say),
            partial(components.download, programs, say),
            *(partial(local_wheels, image, say) for image in IMAGES),
            *(partial(ensure_base_archive, base_of(image), say) for image in IMAGES),
        ]
    )


def build_programs_and_images(
    programs: Sequence[str], built_images: set[str], say: Progress
) -> None:
    """Build first what builds images, then the images beside the other programs."""
    components.build(node.IMAGE_BUILDERS, say)
    run_together(
        [
            partial(components.build, programs, say),
            partial(build_images, built_images, say),
        ]
    )


def build_images(built_images: set[str], say: Progress) -> None:
    """Build both images into the store that the next cluster finds, without a Kubernetes."""
    with Cluster.up(BUILDER, say) as builder:
        for image in IMAGES:
            build_local_image(builder.layout, image, say)
            built_images.add(image)


def run_together(parts: Sequence[Callable[[], object]]) -> None:
    """Run every part in a thread of its own; when one fails, end the others and raise."""
    with ThreadPoolExecutor(len(parts)) as pool:
        running = [pool.submit(part) for part in parts]
        try:
            for ended in as_completed(running):
                ended.result()
        except BaseException:
            # More than once: a part may be just about to start its next process.
            while wait(running, timeout=1).not_done:
                end_children()
            raise


def end_children() -> None:
    """Ask every process that this one has started to end."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGTERM)
