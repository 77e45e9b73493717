"""Exporters: one for each value of ``export.formats``.

Each knows how its file is written, and how it is run again, by the program that its users have, to
be compared with the network.
"""

from __future__ import annotations

import abc
import copy
import importlib.util
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from inception_trainer.checkpoint import safetensors_file
from inception_trainer.errors import ConfigError

DTYPES = {"FP32": torch.float32, "BF16": torch.bfloat16, "FP16": torch.float16}
PRECISIONS = {str(dtype).removeprefix("torch."): name for name, dtype in DTYPES.items()}
"""The names of DTYPES by those of torch."""
METADATA = "inception.json"
"""Name of our metadata inside the files."""
Compute = Callable[[Tensor], Tensor]
"""Images ``[n, 3, side, side]`` to logits ``[n, classes]``, on the CPU."""


@dataclass(frozen=True)
class ExportRequest:
    """What is exported: a network in evaluation mode on the CPU, images of the right shape and
    dtype to trace it with, and what its users must know (``modes.export.describe``).
    """

    network: nn.Module
    images: Tensor
    description: Mapping[str, Any]

    @property
    def metadata(self) -> str:
        """The description as JSON."""
        return json.dumps(self.description)


class Exporter(abc.ABC):
    """How the files of one format are written and run."""

    name: str
    """The value of ``export.formats``."""
    suffix: str
    """How the names of the files end."""
    checked_with: str
    """What runs the file for the comparison."""

    @abc.abstractmethod
    def require(self, precision: str) -> None:
        """Raise ConfigError with the remedy when this image or precision cannot give this format.

        Called before any work, so that a missing package is known at the start.
        """

    @abc.abstractmethod
    def write(self, request: ExportRequest, path: Path, *, fixed: bool) -> None:
        """Write the file; with ``fixed`` for the batch size of the request alone."""

    @abc.abstractmethod
    def load(self, path: Path, network: nn.Module) -> Compute:
        """What the file computes, read from the disk; ``network`` is the exported one."""


class Pt2Exporter(Exporter):
    """torch.export's program, for PyTorch itself, AOTInductor and ExecuTorch."""

    name = "PT2"
    suffix = ".pt2"
    checked_with = f"torch {torch.__version__}"

    @override
    def require(self, precision: str) -> None:
        # Every torch that we support has it.
        pass

    @override
    def write(self, request: ExportRequest, path: Path, *, fixed: bool) -> None:
        program = export_program(request, fixed=fixed)
        with path.open("wb") as file, _no_warnings():
            torch.export.save(program, file, extra_files={METADATA: request.metadata})

    @override
    def load(self, path: Path, network: nn.Module) -> Compute:
        del network
        return Program(path, {})


class OnnxExporter(Exporter):
    """ONNX, the way to the compilers of other vendors."""

    name = "ONNX"
    suffix = ".onnx"
    checked_with = "onnxruntime"
    OPSET = 18

    @override
    def require(self, precision: str) -> None:
        """Refuse BF16, and images without the packages or with an old torch."""
        if precision == "BF16":
            raise ConfigError(
                "precision: BF16 does not go with export.formats ONNX, "
                "which few programs read; use FP16"
            )
        packages = ("onnx", "onnxscript", "onnxruntime")
        # Looked for and not imported, which takes seconds: the answer must come at once.
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"export.formats: ONNX needs the Python packages {', '.join(missing)}, "
                "which are not here; build an image that adds them "
                "(pip install onnx onnxscript onnxruntime; docs/trainer/modes.md), "
                "or leave ONNX out"
            )
        if not hasattr(torch.onnx, "ONNXProgram"):
            raise ConfigError(
                f"export.formats: ONNX needs torch 2.5 or newer, this is {torch.__version__}"
            )

    @override
    def write(self, request: ExportRequest, path: Path, *, fixed: bool) -> None:
        """Write one file with the weights inside."""
        with _no_warnings():
            program = torch.onnx.export(
                export_program(request, fixed=fixed),
                input_names=["images"],
                output_names=["logits"],
                opset_version=self.OPSET,
                dynamo=True,
                verbose=False,
            )
            assert program is not None  # noqa: S101 - with dynamo it always is one
            program.model.metadata_props[METADATA] = request.metadata
            # The weights of these networks fit in one file; ONNX allows 2 GB.
            program.save(path, external_data=False)

    @override
    def load(self, path: Path, network: nn.Module) -> Compute:
        del network
        return OnnxSession(path)


class TorchScriptExporter(Exporter):
    """A traced module, for runtimes that read nothing newer."""

    name = "TorchScript"
    suffix = ".torchscript"
    checked_with = f"torch {torch.__version__}"

    @override
    def require(self, precision: str) -> None:
        """Refuse a torch that has dropped TorchScript, which is deprecated."""
        if not hasattr(torch.jit, "trace"):
            raise ConfigError(
                f"export.formats: torch {torch.__version__} has no TorchScript any more; use PT2"
            )

    @override
    def write(self, request: ExportRequest, path: Path, *, fixed: bool) -> None:
        # Tracing freezes no batch size in these networks; the comparison would show it.
        del fixed
        with _no_warnings():
            traced = torch.jit.trace(request.network, request.images, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, str(path), _extra_files={METADATA: request.metadata})

    @override
    def load(self, path: Path, network: nn.Module) -> Compute:
        del network
        return load_torchscript(path, {})


class SafetensorsExporter(Exporter):
    """The weights alone under this trainer's names, with what they expect of the inputs."""

    name = "Safetensors"
    suffix = ".safetensors"
    checked_with = "this trainer's network"

    @override
    def require(self, precision: str) -> None:
        """Refuse an image without the package safetensors."""
        if importlib.util.find_spec("safetensors") is None:
            raise ConfigError(
                "export.formats: Safetensors needs the Python package safetensors, "
                "which is not here"
            )

    @override
    def write(self, request: ExportRequest, path: Path, *, fixed: bool) -> None:
        del fixed
        description = request.description
        metadata = safetensors_file.metadata(
            model=str(description["model"]),
            step=description["step"] or 0,
            trainer=str(description["trainer"]),
            preprocessing=description["preprocessing"],
            class_names=description["classNames"],
            batch_norm_epsilon=description.get("batchNormEpsilon"),
        )
        path.write_bytes(safetensors_file.encode(request.network.state_dict(), metadata))

    @override
    def load(self, path: Path, network: nn.Module) -> Compute:
        """A network of the same kind with the weights of the file."""
        from safetensors.torch import load_file

        fresh = copy.deepcopy(network)
        # Zeros first: a tensor that the file lacks must not be right by chance.
        for tensor in (*fresh.parameters(), *fresh.buffers()):
            tensor.detach().zero_()
        fresh.load_state_dict(load_file(path))
        return fresh


EXPORTERS: dict[str, Callable[[], Exporter]] = {
    exporter.name: exporter
    for exporter in (Pt2Exporter, OnnxExporter, TorchScriptExporter, SafetensorsExporter)
}
"""The exporter of each value of ``export.formats``."""


def export_program(request: ExportRequest, *, fixed: bool) -> Any:
    """The network as torch.export's program, for any batch size unless ``fixed``."""
    # The largest size is a bound that torch.export wants; nothing depends on it.
    shapes = None if fixed else ({0: torch.export.Dim("batch", min=1, max=65536)},)
    return torch.export.export(request.network, (request.images,), dynamic_shapes=shapes)


@dataclass(frozen=True)
class Input:
    """What a program says of its first input."""

    shape: tuple[int | None, ...]
    """None where any size goes."""
    dtype: str

    @classmethod
    def of(cls, sizes: Iterable[object], dtype: str) -> Input:
        """From sizes that are numbers or, where they are free, names and symbols."""
        return cls(tuple(size if type(size) is int and size > 0 else None for size in sizes), dtype)


class Program:
    """A .pt2 file as a function; the values of ``extra_files`` are filled in by their keys."""

    def __init__(self, path: Path, extra_files: dict[str, Any]) -> None:
        with path.open("rb") as file, _no_warnings():
            program = torch.export.load(file, extra_files=extra_files)
            self._compute: Compute = program.module()
        name = program.graph_signature.user_inputs[0]
        (value,) = (node.meta["val"] for node in program.graph.nodes if node.name == name)
        self.input = Input.of(value.shape, str(value.dtype).removeprefix("torch."))

    def __call__(self, images: Tensor) -> Tensor:
        """Images ``[n, 3, side, side]`` to logits ``[n, classes]``."""
        return self._compute(images)


def load_torchscript(path: Path, extra_files: dict[str, Any]) -> Compute:
    """A TorchScript file as a function; the values of ``extra_files`` are filled in likewise."""
    with _no_warnings():
        traced: Compute = torch.jit.load(str(path), "cpu", _extra_files=extra_files)  # type: ignore[no-untyped-call]
    return traced


class OnnxSession:
    """An ONNX file as a function, run by onnxruntime on the CPU; its metadata are texts.

    ConfigError where onnxruntime is missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError(
                f"model.weights: {path} needs the Python package onnxruntime, which is not here; "
                "build an image that adds it"
            ) from None
        options = onnxruntime.SessionOptions()
        # Its own default is all cores of the node, whatever the pod's share of them.
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        first = self._session.get_inputs()[0]
        self._input_name = first.name
        kind = first.type.removeprefix("tensor(").removesuffix(")")
        self.input = Input.of(first.shape, "float32" if kind == "float" else kind)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, images: Tensor) -> Tensor:
        """Images ``[n, 3, side, side]`` to logits ``[n, classes]``."""
        inputs = {self._input_name: images.contiguous().numpy()}
        return torch.from_numpy(self._session.run(None, inputs)[0])


@contextmanager
def _no_warnings() -> Iterator[None]:
    # Deprecations inside torch's exporters are nothing that a user can act on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
