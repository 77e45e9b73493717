"""Earlier releases: the CRD from tests/compat, everything else from git's history."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from demo.images import LOCAL_LOCKS, base_of, fetch_wheels, local_build
from localcluster import images
from localcluster.model import Layout
from operator_process import ROOT

COMPAT = ROOT / "tests" / "compat"
LAST = max(
    (path.parent.name for path in COMPAT.glob("v*/revision")),
    key=lambda name: tuple(int(part) for part in name.removeprefix("v").split(".")),
)
# What a release is installed from.
PARTS = ("charts", "operator", "trainer", "requirements", "Dockerfile", ".dockerignore")


def crd_of(release: str) -> Path:
    """The file of its CRD."""
    return COMPAT / release / "crd.yaml"


def unpack(release: str, folder: Path, *parts: str) -> Path:
    """Unpack files and folders of a release's source; returns the folder."""
    revision = (COMPAT / release / "revision").read_text(encoding="utf-8").strip()
    done = subprocess.run(
        ["git", "-C", str(ROOT), "archive", revision, *parts], check=False, capture_output=True
    )
    assert done.returncode == 0, (
        f"{release} is commit {revision}, which this checkout does not have: fetch the whole "
        f"history (git fetch --unshallow). {done.stderr.decode()}"
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def unpack_operator(release: str, folder: Path) -> Path:
    """The operator's package of a release, unpacked; the folder to import it from."""
    return unpack(release, folder, "operator") / "operator"


@dataclass(frozen=True)
class Release:
    """A chart and the images that go with it, which are on the node."""

    chart: Path
    operator_image: str
    trainer_image: str

    @property
    def images(self) -> str:
        """The argument of Helm that names them."""
        repository, _, tag = self.operator_image.rpartition(":")
        operator = f"image.registry=,image.repository={repository},image.tag={tag}"
        return f"--set={operator},trainerImage={self.trainer_image}"


def build_release(
    layout: Layout, release: str, folder: Path, say: Callable[[str], None]
) -> Release:
    """The chart of a release in a folder, and its images on the node; built only once."""
    source = unpack(release, folder, *PARTS)
    operator, trainer = (
        _build_image(layout, release, image, source, say) for image in ("operator", "trainer")
    )
    return Release(source / "charts" / "inception-operator", operator, trainer)


def _build_image(
    layout: Layout, release: str, image: str, source: Path, say: Callable[[str], None]
) -> str:
    """Build one image from the release's own Dockerfile and locks; returns its name."""
    lock, python = LOCAL_LOCKS[image]
    theirs, ours = (root / "requirements" / lock for root in (source, ROOT))
    # Packages that have not changed since then are here already.
    name = "local" if theirs.read_bytes() == ours.read_bytes() else release
    wheels = fetch_wheels(f"{image}-{name}", (lock,), say, python, source)
    images.import_base(layout, base_of(image), say)
    build = replace(
        local_build(image, say),
        tag=f"localhost/inception-{image}:{release}",
        context=source,
        dockerfile=source / "Dockerfile",
        named_contexts={"wheels": wheels},
    )
    images.build_image(layout, build, say)
    return build.tag
