"""The two images: wheels fetched once by their lock, images built from the Dockerfile."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"
LOCKS = {"operator": ("operator.txt",), "trainer": ("torch.txt", "trainer.txt")}
if TYPE_CHECKING:
    from localcluster.model import Layout

Progress = Callable[[str], None]


def cache() -> Path:
    """Where downloads live: INCEPTION_CACHE or .cache of this checkout."""
    return Path(os.environ.get("INCEPTION_CACHE", ROOT / ".cache"))


def lock_digest(image: str) -> str:
    """Short hash over the locks that an image installs."""
    digest = hashlib.sha256()
    for lock in LOCKS[image]:
        digest.update((ROOT / "requirements" / lock).read_bytes())
    return digest.hexdigest()[:16]


def fetch_wheels(image: str, progress: Progress) -> Path:
    """Download the wheels of one image into the cache; a second call with the same locks does nothing."""
    folder = cache() / "wheels" / image
    stamp = folder / ".lock"
    if stamp.exists() and stamp.read_text() == lock_digest(image):
        return folder
    size = ", torch is 2.9 GB" if image == "trainer" else ""
    progress(f"downloading the wheels of the {image} image{size}")
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in folder.glob("*.whl"):
        wheel.unlink()
    for lock in LOCKS[image]:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        argv += ["--only-binary", ":all:", "--require-hashes", "--dest", str(folder)]
        subprocess.run([*argv, "-r", str(ROOT / "requirements" / lock)], check=True)
    stamp.write_text(lock_digest(image))
    return folder


def docker_build(image: str, tag: str, progress: Progress) -> None:
    """Build one image with docker buildx."""
    progress(f"docker buildx build --target {image}")
    subprocess.run(["docker", "buildx", "build", "--load", "--target", image, "-t", tag, str(ROOT)], check=True)


def local_tag(image: str) -> str:
    """The name of an image in the store of a local node."""
    return f"localhost/inception-{image}:{VERSION}"


def build_local_image(layout: Layout, image: str, progress: Progress) -> bool:
    """Build one image into a local node; False when it was up to date."""
    from localcluster.images import BASE_IMAGE, ImageBuild, build_image

    return build_image(
        layout,
        ImageBuild(
            tag=local_tag(image),
            context=ROOT,
            dockerfile=ROOT / "Dockerfile",
            target=image,
            build_args={"BASE_IMAGE": BASE_IMAGE, "OPERATOR_BASE_IMAGE": BASE_IMAGE},
            named_contexts={"wheels": fetch_wheels(image, progress)},
            sources=(f"{image}/inception_{image}", *(f"requirements/{lock}" for lock in LOCKS[image])),
        ),
        progress,
    )
