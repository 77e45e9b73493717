"""Images without a registry: a Debian base, the pause image, and builds from a Dockerfile straight
into the node.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import ociarchive
from .errors import BuildError
from .imagestore import image_store, record_key, recorded_key
from .locks import held
from .model import Layout
from .paths import cache_dir
from .progress import Progress, to_stderr

_WHOLE_FILE_LIMIT = 1 << 20


@dataclass(frozen=True)
class BaseImage:
    """An image made of Debian packages alone."""

    tag: str
    suite: str
    packages: tuple[str, ...]

    @property
    def recipe(self) -> str:
        """What decides the image's content, for hashing."""
        return json.dumps([self.suite, *self.packages])


_PYTHON = ("ca-certificates", "python3", "python3-venv")
PYTHON_BASE = BaseImage("localhost/python-base:bookworm", "bookworm", _PYTHON)
# Debian's torch is a CPU build: a quarter of the size of the one that brings CUDA.
TORCH_BASE = BaseImage(
    "localhost/torch-base:trixie", "trixie", (*_PYTHON, "python3-torch", "python3-torchvision")
)
BASE_IMAGE = PYTHON_BASE.tag


@dataclass(frozen=True)
class ImageBuild:
    """What to build. ``sources`` are the parts of the context that the result depends on, relative
    to it.

    ``named_contexts`` are further directories; a Dockerfile mounts them with ``RUN
    --mount=type=bind,from=NAME``.
    """

    tag: str
    context: Path
    dockerfile: Path
    target: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    named_contexts: Mapping[str, Path] = field(default_factory=dict)
    sources: tuple[str, ...] = (".",)


def build_image(layout: Layout, build: ImageBuild, progress: Progress = to_stderr) -> bool:
    """Build an image into the node of a running cluster; False when it is there already from the
    same inputs.
    """
    store = image_store(layout)
    key = build_key(build)
    if recorded_key(store, build.tag) == key and has_image(layout, build.tag):
        progress(f"{build.tag} is up to date")
        return False
    progress(f"building {build.tag}")
    _run(build_command(layout, build), f"{build.tag} does not build")
    _drop_replaced(layout)
    record_key(store, build.tag, key)
    return True


def _drop_replaced(layout: Layout) -> None:
    """Forget images that lost their name to a newer build: containerd keeps them under their
    digest.
    """
    listing = subprocess.run(
        _ctr(layout, "images", "list"), capture_output=True, text=True, check=True
    ).stdout
    replaced = replaced_images(listing)
    if replaced:
        _run(
            _ctr(layout, "images", "remove", *replaced),
            "replaced images cannot be removed",
            quiet=True,
        )


def replaced_images(listing: str) -> tuple[str, ...]:
    """References by digest, in the table of ``ctr images list``, to images that no name
    refers to.
    """
    rows = [line.split()[:3] for line in listing.splitlines()[1:] if line.strip()]
    named = {digest for reference, _, digest in rows if not reference.startswith("sha256:")}
    return tuple(
        reference
        for reference, _, digest in rows
        if reference.startswith("sha256:") and digest not in named
    )


def build_command(layout: Layout, build: ImageBuild) -> tuple[str, ...]:
    """The ``buildctl`` command of a build."""
    options = [f"filename={build.dockerfile.name}", "image-resolve-mode=local"]
    options += [f"target={build.target}"] if build.target else []
    options += [f"build-arg:{name}={value}" for name, value in sorted(build.build_args.items())]
    options += [f"context:{name}=local:{name}" for name in sorted(build.named_contexts)]
    directories = {
        "context": build.context,
        "dockerfile": build.dockerfile.parent,
        **build.named_contexts,
    }
    output = f"type=image,name={build.tag},unpack=true,compression=uncompressed"
    return _buildctl(
        layout,
        "build",
        "--progress=plain",
        "--frontend=dockerfile.v0",
        *(f"--local={name}={path}" for name, path in directories.items()),
        *(f"--opt={option}" for option in options),
        f"--output={output}",
    )


def _buildctl(layout: Layout, *arguments: str) -> tuple[str, ...]:
    return (layout.binary("buildctl"), f"--addr=unix://{layout.buildkit_socket}", *arguments)


def build_key(build: ImageBuild) -> str:
    """A hash over everything that decides what the image is."""
    digest = hashlib.sha256()
    settings = [
        PYTHON_BASE.recipe,
        TORCH_BASE.recipe,
        build.target,
        dict(build.build_args),
        sorted(build.named_contexts),
    ]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    _add_files(digest, build.dockerfile.parent, [build.dockerfile, *_ignore_files(build)])
    _add_files(digest, build.context, context_files(build.context, build.sources))
    for _, directory in sorted(build.named_contexts.items()):
        _add_files(digest, directory, _all_files(directory))
    return digest.hexdigest()


def _ignore_files(build: ImageBuild) -> list[Path]:
    candidates = (
        build.context / ".dockerignore",
        build.dockerfile.with_name(f"{build.dockerfile.name}.dockerignore"),
    )
    return [path for path in candidates if path.exists()]


def context_files(context: Path, sources: Iterable[str]) -> list[Path]:
    """Files of the context below ``sources``: what git does not ignore, or everything where there
    is no git.
    """
    command = (
        "git",
        "-C",
        str(context),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        *sources,
    )
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode == 0:
        paths = {context / name for name in listing.stdout.split("\0") if name}
        return sorted(path for path in paths if path.is_file())
    return sorted(path for source in sources for path in _all_files(context / source))


def _all_files(directory: Path) -> list[Path]:
    if directory.is_file():
        return [directory]
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _add_files(digest: hashlib._Hash, root: Path, paths: Iterable[Path]) -> None:
    for path in paths:
        name = path.relative_to(root) if path.is_relative_to(root) else path.name
        size = path.stat().st_size
        digest.update(f"\0{name}\0{size}\0{path.stat().st_mode & 0o111}\0".encode())
        # Large files are wheels: their names carry version and platform, reading gigabytes would
        # tell nothing more.
        if size <= _WHOLE_FILE_LIMIT:
            digest.update(path.read_bytes())


def has_image(layout: Layout, tag: str) -> bool:
    """Whether the node has an image of that name."""
    listing = _ctr(layout, "images", "list", "--quiet", f"name=={tag}")
    return subprocess.run(listing, capture_output=True, text=True, check=True).stdout.strip() == tag


def _ctr(layout: Layout, *arguments: str) -> tuple[str, ...]:
    return (
        layout.binary("ctr"),
        f"--address={layout.containerd_socket}",
        "--namespace=k8s.io",
        *arguments,
    )


def import_archive(layout: Layout, tag: str, archive: Path) -> bool:
    """Import an OCI archive into the node; False when that same archive is there already."""
    store = image_store(layout)
    if recorded_key(store, tag) == archive.stem and has_image(layout, tag):
        return False
    _run(
        _ctr(layout, "images", "import", "--local", str(archive)),
        f"{tag} cannot be imported",
        quiet=True,
    )
    record_key(store, tag, archive.stem)
    return True


def _run(command: tuple[str, ...], complaint: str, *, quiet: bool = False) -> None:
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=quiet, text=True, check=False
    )
    if result.returncode:
        raise BuildError(
            f"{complaint}: exit code {result.returncode}"
            + (f": {result.stderr.strip()}" if quiet else "")
        )


def ensure_base_archive(base: BaseImage = PYTHON_BASE, progress: Progress = to_stderr) -> Path:
    """A base image as an OCI archive, made from Debian packages unless cached. Needs the package
    mirrors once.
    """
    archive = _archive_path(base.tag.rpartition("/")[2].replace(":", "-"), base.recipe.encode())
    # Clusters that start together need the same ones.
    with held(archive.with_suffix(".lock")):
        if not archive.exists():
            progress(f"making {base.tag} from Debian packages, about a minute")
            _make_base_archive(base, archive)
    return archive


def _make_base_archive(base: BaseImage, archive: Path) -> None:
    root = archive.with_suffix(".root")
    include = f"--include={','.join(base.packages)}"
    _run(
        (
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            include,
            base.suite,
            f"{root}",
            "--format=tar",
        ),
        base.tag,
    )
    config = ociarchive.ImageConfig(
        env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    )
    ociarchive.write(archive, base.tag, root, config)
    root.unlink()


def import_base(layout: Layout, base: BaseImage, progress: Progress = to_stderr) -> None:
    """Have a base image on the node."""
    import_archive(layout, base.tag, ensure_base_archive(base, progress))


def ensure_pause_archive(binary: Path) -> Path:
    """The pause image as an OCI archive around the binary."""
    archive = _archive_path("pause", binary.read_bytes())
    # Clusters that start together need the same ones.
    with held(archive.with_suffix(".lock")):
        if not archive.exists():
            layer = archive.with_suffix(".layer")
            ociarchive.write_layer(layer, {"pause": binary})
            config = ociarchive.ImageConfig(entrypoint=("/pause",), user="65535:65535")
            ociarchive.write(archive, "localhost/pause:1", layer, config)
            layer.unlink()
    return archive


def _archive_path(name: str, recipe: bytes) -> Path:
    directory = cache_dir() / "images"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{name}-{hashlib.sha256(recipe).hexdigest()[:16]}.tar"
