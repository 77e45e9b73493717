"""Write an image as an OCI archive: one uncompressed layer, its configuration, and a name."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_EPOCH = "1970-01-01T00:00:00Z"
_MEDIA = "application/vnd.oci.image"


@dataclass(frozen=True)
class ImageConfig:
    """How a container of the image starts."""

    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""


def write_layer(path: Path, files: Mapping[str, Path]) -> None:
    """A layer with executables: name in the image to file here."""
    with tarfile.open(path, "w") as layer:
        for name, source in files.items():
            entry = _entry(name, source.stat().st_size, 0o755)
            with source.open("rb") as content:
                layer.addfile(entry, content)


def write(archive: Path, name: str, layer: Path, config: ImageConfig) -> None:
    """Pack ``layer`` into an archive that imports as ``name``; the archive appears only when it is
    complete.
    """
    layer_digest = _file_digest(layer)
    config_blob = _json(_config_document(config, layer_digest))
    layers = [_descriptor(f"{_MEDIA}.layer.v1.tar", layer_digest, layer.stat().st_size)]
    manifest_blob = _json(_manifest_document(config_blob, layers))
    partial = archive.with_suffix(".partial")
    with tarfile.open(partial, "w") as output:
        _add(output, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(output, "index.json", _json(_index_document(name, manifest_blob)))
        for blob in (config_blob, manifest_blob):
            _add(output, _blob_name(_digest(blob)), blob)
        with layer.open("rb") as content:
            output.addfile(_entry(_blob_name(layer_digest), layer.stat().st_size), content)
    partial.rename(archive)


def _config_document(config: ImageConfig, layer_digest: str) -> dict[str, Any]:
    process = {"Entrypoint": list(config.entrypoint), "Env": list(config.env), "User": config.user}
    return {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": _EPOCH,
        "config": {key: value for key, value in process.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{"created": _EPOCH}],
    }


def _manifest_document(config_blob: bytes, layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": _descriptor(f"{_MEDIA}.config.v1+json", _digest(config_blob), len(config_blob)),
        "layers": layers,
    }


def _index_document(name: str, manifest_blob: bytes) -> dict[str, Any]:
    manifest = _descriptor(f"{_MEDIA}.manifest.v1+json", _digest(manifest_blob), len(manifest_blob))
    annotations = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    return {"schemaVersion": 2, "manifests": [{**manifest, "annotations": annotations}]}


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _entry(name: str, size: int, mode: int = 0o644) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    return entry


def _add(output: tarfile.TarFile, name: str, content: bytes) -> None:
    output.addfile(_entry(name, len(content)), io.BytesIO(content))


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _file_digest(path: Path) -> str:
    with path.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
