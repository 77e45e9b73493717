"""Images as files: build one into an OCI archive and read what is in it."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demo.images import local_build
from localcluster.images import build_command
from localcluster.model import Layout

Json = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One file of an image."""

    name: str
    size: int
    mode: int
    kind: bytes
    target: str

    @property
    def is_program(self) -> bool:
        """Whether it is a regular file that somebody may run."""
        return self.kind == tarfile.REGTYPE and bool(self.mode & 0o111)


@dataclass(frozen=True)
class Archive:
    """An image in an OCI archive."""

    path: Path

    def json(self, digest: str) -> Json:
        """A JSON document by its digest."""
        return dict(json.loads(self._read(f"blobs/{digest.replace(':', '/')}")))

    @property
    def digest(self) -> str:
        """The digest of the manifest, which covers every bit of the image."""
        return str(json.loads(self._read("index.json"))["manifests"][0]["digest"])

    @property
    def manifest(self) -> Json:
        """The list of layers."""
        return self.json(self.digest)

    @property
    def config(self) -> Json:
        """How containers of the image start, and its labels."""
        return dict(self.json(self.manifest["config"]["digest"])["config"])

    def entries(self, layer: int) -> list[Entry]:
        """The files of one layer."""
        with tarfile.open(self.path) as archive:
            blob = archive.extractfile(self._layer(layer))
            with tarfile.open(fileobj=blob, mode="r|*") as files:
                return [Entry(f.name, f.size, f.mode, f.type, f.linkname) for f in files]

    def text(self, layer: int, name: str) -> str:
        """A text file of one layer."""
        with tarfile.open(self.path) as archive:
            blob = archive.extractfile(self._layer(layer))
            with tarfile.open(fileobj=blob, mode="r:*") as files:
                file = files.extractfile(name)
                assert file is not None
                return file.read().decode()

    def _layer(self, number: int) -> str:
        return f"blobs/{self.manifest['layers'][number]['digest'].replace(':', '/')}"

    def _read(self, name: str) -> bytes:
        with tarfile.open(self.path) as archive:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()


def build_archive(
    layout: Layout,
    image: str,
    archive: Path,
    *flags: str,
    output: Sequence[str] = (),
    **arguments: str,
) -> Archive:
    """Build one of the images into an archive.

    `flags` go to the build command, `output` to its exporter, `arguments` to the Dockerfile.
    """
    build = local_build(image, lambda _: None)
    build = replace(build, build_args={**build.build_args, **arguments})
    command = [part for part in build_command(layout, build) if not part.startswith("--output=")]
    exporter = ",".join(["type=oci", f"dest={archive}", "compression=uncompressed", *output])
    subprocess.run([*command, *flags, f"--output={exporter}"], check=True)
    return Archive(archive)
