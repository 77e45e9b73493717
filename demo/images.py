"""The two images: wheels fetched once by their locks, images built from the Dockerfile."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localcluster.images import BaseImage, ImageBuild
    from localcluster.model import Layout

ROOT = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"
IMAGES = ("operator", "trainer")
LOCKS = {"operator": ("operator.txt",), "trainer": ("torch.txt", "nvidia.txt", "trainer.txt")}
# Of an image of a local node: the lock of its packages, and the Python of its base.
LOCAL_LOCKS = {"operator": ("operator.txt", "3.11"), "trainer": ("trainer.txt", "3.13")}
GLIBC_MINORS = (5, 12, 17, 24, 26, 27, 28, 31, 34)
Progress = Callable[[str], None]


def fetch_wheels(
    name: str,
    locks: tuple[str, ...],
    progress: Progress,
    python: str | None = None,
    source: Path = ROOT,
) -> Path:
    """Download the wheels of some locks into the cache, for builds without an index; once for the
    same locks.

    `python` is the version they are for, such as 3.13; None for the one that runs this. `source` is
    the folder of the source whose locks they are.
    """
    from localcluster.locks import held

    files = [source / "requirements" / lock for lock in locks]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder = Path(os.environ.get("INCEPTION_CACHE", ROOT / ".cache")) / "wheels" / name
    # Two that start together need the same ones.
    with held(folder.with_suffix(".lock")):
        stamp = folder / ".lock"
        if not stamp.exists() or stamp.read_text() != digest:
            _download(folder, files, progress, python)
            stamp.write_text(digest)
    return folder


def _download(folder: Path, files: list[Path], progress: Progress, python: str | None) -> None:
    locks = [file.name for file in files]
    progress(
        f"downloading the wheels of {' and '.join(locks)}"
        + (", 3 GB" if "torch.txt" in locks else "")
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in files:
        argv = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        argv += [
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--dest",
            str(folder),
            *platform_options(python),
        ]
        subprocess.run([*argv, "-r", str(file)], check=True)


def platform_options(python: str | None) -> list[str]:
    """pip's options to download for another Python on this machine's architecture."""
    if python is None:
        return []
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC_MINORS]
    tags += [f"manylinux{year}_{machine}" for year in ("1", "2010", "2014")]
    return ["--python-version", python, *(word for tag in tags for word in ("--platform", tag))]


def docker_build(image: str, tag: str, progress: Progress) -> None:
    """Build one image with docker buildx."""
    progress(f"docker buildx build --target {image}")
    subprocess.run(
        ["docker", "buildx", "build", "--load", "--target", image, "-t", tag, str(ROOT)], check=True
    )


def local_tag(image: str) -> str:
    """The name of an image in the store of a local node."""
    return f"localhost/inception-{image}:{VERSION}"


def base_of(image: str) -> BaseImage:
    """What an image of a local node is built on.

    The trainer's base brings Debian's CPU build of torch, as a vendor's base would bring its own.
    """
    from localcluster import images

    return {"operator": images.PYTHON_BASE, "trainer": images.TORCH_BASE}[image]


def local_wheels(image: str, progress: Progress) -> Path:
    """The folder of wheels for an image of a local node, which are for the Python of its base."""
    lock, python = LOCAL_LOCKS[image]
    return fetch_wheels(f"{image}-local", (lock,), progress, python)


def local_build(image: str, progress: Progress) -> ImageBuild:
    """How one image of a local node is built."""
    from localcluster import images

    base = base_of(image)
    return images.ImageBuild(
        tag=local_tag(image),
        context=ROOT,
        dockerfile=ROOT / "Dockerfile",
        target=image,
        build_args={"BASE_IMAGE": base.tag, "OPERATOR_BASE_IMAGE": base.tag},
        named_contexts={"wheels": local_wheels(image, progress)},
        sources=(
            f"{image}/inception_{image}",
            "images",
            *(f"requirements/{lock}" for lock in LOCKS[image]),
        ),
    )


def build_local_image(layout: Layout, image: str, progress: Progress) -> bool:
    """Build one image into a local node; False when it was up to date."""
    from localcluster import images

    images.import_base(layout, base_of(image), progress)
    return images.build_image(layout, local_build(image, progress), progress)
