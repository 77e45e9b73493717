"""The forms in which a network leaves this trainer: how each is written, and how it is run again to
be checked.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from inception_trainer.errors import ConfigError

DTYPES = {"FP32": torch.float32, "BF16": torch.bfloat16, "FP16": torch.float16}
METADATA = "inception.json"
"""Name of our metadata inside the files."""
Compute = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ExportRequest:
    """What is exported: a network in evaluation mode on the CPU, images of the right shape, facts
    for its users.
    """

    network: nn.Module
    images: Tensor
    described: Mapping[str, Any]

    @property
    def metadata(self) -> str:
        """The facts as JSON."""
        return json.dumps(self.described)


class Exporter(Protocol):
    """One value of ``export.formats``."""

    name: str
    suffix: str
    checked_with: str

    def require(self, precision: str) -> None:
        """Raise ConfigError with the remedy when this image or precision cannot give this form."""

    def write(self, request: ExportRequest, path: Path, *, fixed: bool) -> None:
        """Write the file; with ``fixed`` for the batch of the request alone."""

    def load(self, path: Path, network: nn.Module) -> Compute:
        """What the file computes, read from the disk."""


class Program:
    """torch.export's program, for PyTorch itself, AOTInductor and ExecuTorch."""

    name, suffix = "PT2", ".pt2"
    checked_with = f"torch {torch.__version__}"

    def require(self, precision: str) -> None:
        """Every torch that we support has it."""

    def write(self, request: ExportRequest, path: Path, *, fixed: bool) -> None:
        """Save with our metadata as an extra file."""
        with path.open("wb") as file, _quiet():
            torch.export.save(
                captured(request, fixed=fixed), file, extra_files={METADATA: request.metadata}
            )

    def load(self, path: Path, network: nn.Module) -> Compute:
        """Load and run."""
        del network
        return load_program(path, {})


class Onnx:
    """ONNX, the way to the compilers of other vendors."""

    name, suffix, checked_with = "ONNX", ".onnx", "onnxruntime"
    OPSET = 18

    def require(self, precision: str) -> None:
        """Packages that the image may lack."""
        if precision == "BF16":
            raise ConfigError(
                "precision: BF16 does not go with export.formats ONNX, which few programs read; use FP16"
            )
        missing = [
            name
            for name in ("onnx", "onnxscript", "onnxruntime")
            if importlib.util.find_spec(name) is None
        ]
        if missing:
            raise ConfigError(
                f"export.formats: ONNX needs the Python packages {', '.join(missing)}, which are not here; build "
                "an image that adds them (pip install onnx onnxscript onnxruntime; docs/trainer.md), or leave ONNX out"
            )
        if not hasattr(torch.onnx, "ONNXProgram"):
            raise ConfigError(
                f"export.formats: ONNX needs torch 2.5 or newer, this is {torch.__version__}"
            )

    def write(self, request: ExportRequest, path: Path, *, fixed: bool) -> None:
        """One file with the weights inside."""
        with _quiet():
            program = torch.onnx.export(
                captured(request, fixed=fixed),
                input_names=["images"],
                output_names=["logits"],
                opset_version=self.OPSET,
                dynamo=True,
                verbose=False,
            )
            assert program is not None  # noqa: S101 - with dynamo it always is one
            program.model.metadata_props[METADATA] = request.metadata
            program.save(path, external_data=False)

    def load(self, path: Path, network: nn.Module) -> Compute:
        """Run by onnxruntime, on the CPU."""
        del network
        return OnnxSession(path)


class TorchScript:
    """A traced module, for runtimes that read nothing newer."""

    name, suffix = "TorchScript", ".torchscript"
    checked_with = f"torch {torch.__version__}"

    def require(self, precision: str) -> None:
        """As long as torch has it."""
        if not hasattr(torch.jit, "trace"):
            raise ConfigError(
                f"export.formats: torch {torch.__version__} has no TorchScript any more; use PT2"
            )

    def write(self, request: ExportRequest, path: Path, *, fixed: bool) -> None:
        """Tracing freezes no batch size in these networks; the check would show it."""
        del fixed
        with _quiet():
            traced = torch.jit.trace(request.network, request.images, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, str(path), _extra_files={METADATA: request.metadata})

    def load(self, path: Path, network: nn.Module) -> Compute:
        """Load and run."""
        del network
        return load_torchscript(path, {})


class Safetensors:
    """The weights alone under this trainer's names, with what they expect of the inputs."""

    name, suffix, checked_with = "Safetensors", ".safetensors", "this trainer's network"

    def require(self, precision: str) -> None:
        """A package that the image may lack."""
        if importlib.util.find_spec("safetensors") is None:
            raise ConfigError(
                "export.formats: Safetensors needs the Python package safetensors, which is not here"
            )

    def write(self, request: ExportRequest, path: Path, *, fixed: bool) -> None:
        """Metadata are texts, as the format has it."""
        del fixed
        from safetensors.torch import save_file

        described = request.described
        metadata = {
            "format": "pt",
            "trainer": str(described["trainer"]),
            "model": str(described["model"]),
            "step": str(described["step"] or 0),
            "preprocessing": json.dumps(described["preprocessing"]),
            "class_names": json.dumps(described["classNames"]),
        }
        save_file(
            {name: value.contiguous() for name, value in request.network.state_dict().items()},
            path,
            metadata,
        )

    def load(self, path: Path, network: nn.Module) -> Compute:
        """The same kind of network with these weights."""
        import copy

        from safetensors.torch import load_file

        fresh = copy.deepcopy(network)
        for tensor in (*fresh.parameters(), *fresh.buffers()):
            tensor.detach().zero_()
        fresh.load_state_dict(load_file(path))
        return fresh


FORMATS: dict[str, Callable[[], Exporter]] = {
    form.name: form for form in (Program, Onnx, TorchScript, Safetensors)
}


def captured(request: ExportRequest, *, fixed: bool) -> Any:
    """The network as torch.export sees it, for any batch unless ``fixed``."""
    shapes = None if fixed else ({0: torch.export.Dim("batch", min=1, max=65536)},)
    return torch.export.export(request.network, (request.images,), dynamic_shapes=shapes)


def load_program(path: Path, extra_files: dict[str, Any]) -> Compute:
    """A .pt2 file as a function; ``extra_files`` is filled in."""
    with path.open("rb") as file, _quiet():
        program: Compute = torch.export.load(file, extra_files=extra_files).module()
    return program


def load_torchscript(path: Path, extra_files: dict[str, Any]) -> Compute:
    """A TorchScript file as a function; ``extra_files`` is filled in."""
    with _quiet():
        traced: Compute = torch.jit.load(str(path), "cpu", _extra_files=extra_files)  # type: ignore[no-untyped-call]
    return traced


class OnnxSession:
    """An ONNX file as a function; ConfigError where onnxruntime is missing."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError(
                f"model.weights: {path} needs the Python package onnxruntime, which is not here; build an image that "
                "adds it"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        return torch.from_numpy(
            self._session.run(None, {self._input: images.contiguous().numpy()})[0]
        )


def file_sha256(path: Path) -> str:
    """Of the whole file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    # Deprecations inside torch's exporters are nothing that a user can act on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
