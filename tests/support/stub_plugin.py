"""Stand-ins for the vendors' plug-ins: they write down what they are asked, and their device is the
host's memory.

A test puts a module with the plug-in's real name on the path (:func:`write`); what the trainer
imports then adds the vendor's device type and collective back end to torch, as the real one does.
The operations behind it are in ``stub_device/device.cpp``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import time
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import util
from pathlib import Path
from typing import Any

from cache_folder import CACHE

SOURCE = Path(__file__).parent / "stub_device" / "device.cpp"
BUILT = CACHE / "stub-device"
TYPES = {5: "FP16", 6: "FP32", 15: "BF16"}
"""torch's numbers of the floating point types."""


@dataclass(frozen=True)
class Stub:
    """How a plug-in presents itself."""

    kind: str
    backend: str
    bf16: bool | None = None
    """What ``is_bf16_supported`` says; None: there is no such function."""
    own_scaler: bool = False
    """Whether the vendor's module has ``amp.GradScaler``."""
    count: int = 2
    numbers: tuple[str, ...] = ("bfloat16", "float16")
    """What its autocast can compute in."""
    events: bool = False
    """Whether the vendor's module has ``Event``."""
    contiguous_only: bool = False
    """Whether it refuses tensors in another memory format."""

    @property
    def type(self) -> str:
        """The type of its tensors: autograd cannot run torch's own ``hpu`` in a build for CUDA."""
        return "standin" if self.kind == "hpu" else self.kind


def library() -> Path:
    """The stub's operations, compiled once per torch and source. Needs g++."""
    import torch

    version = f"{torch.__version__}{SOURCE.read_text()}"
    target = BUILT / f"{hashlib.sha256(version.encode()).hexdigest()[:16]}.so"
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _compile(Path(torch.__file__).parent, target)
    return target


def _compile(home: Path, target: Path) -> None:
    draft = target.with_suffix(".draft")
    include = [f"-I{home / 'include' / part}" for part in ("", "torch/csrc/api/include")]
    flags = ["-std=c++20", "-O0", "-w", "-fPIC", "-shared", "-DUSE_DISTRIBUTED", *include]
    libraries = [f"-L{home / 'lib'}", "-lc10", "-ltorch_cpu", "-ltorch"]
    subprocess.run(["g++", *flags, str(SOURCE), *libraries, "-o", str(draft)], check=True)
    draft.replace(target)


def write(folder: Path, module: str, stub: Stub) -> None:
    """Put the plug-in ``module`` into ``folder``, dotted names as packages."""
    *parents, last = module.split(".")
    place = folder.joinpath(*parents)
    place.mkdir(parents=True, exist_ok=True)
    text = (
        f"import stub_plugin\nstub_plugin.install({module!r}, "
        f"stub_plugin.Stub(**{asdict(stub)!r}))\n"
    )
    text += "\n\ndef _autoload():\n    pass\n"
    (place / last).mkdir(exist_ok=True)
    (place / last / "__init__.py").write_text(text)


def write_functions(folder: Path, module: str, *names: str) -> None:
    """Put a module into ``folder`` whose functions are noted when they are called."""
    place = folder.joinpath(*module.split("."))
    place.mkdir(parents=True, exist_ok=True)
    lines = ["import stub_plugin", f"stub_plugin.note('import', module={module!r})"]
    lines += [f"{name} = stub_plugin.noted({name!r})" for name in names]
    (place / "__init__.py").write_text("\n".join(lines) + "\n")


def noted(name: str) -> Callable[[], Any]:
    """A function without arguments; those that choose a device return it."""

    def function() -> Any:
        import torch

        note(name, initialized=torch.distributed.is_initialized())
        chosen = {"xla_device": "xla:0", "initialize_distributed_hpu": "standin:0"}.get(name)
        return chosen and torch.device(chosen)

    return function


def note(event: str, **details: Any) -> None:
    """Append to this process's log."""
    with Path(os.environ["STUB_LOG"], f"{os.environ['RANK']}.jsonl").open("a") as file:
        file.write(json.dumps({"event": event, **details}) + "\n")


def events(folder: Path, rank: int) -> list[dict[str, Any]]:
    """What the stub noted in a rank."""
    path = folder / f"{rank}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def install(module: str, stub: Stub) -> None:
    """What a plug-in does when it is imported."""
    import torch
    import torch.distributed as dist

    note("import", module=module, initialized=dist.is_initialized())
    torch.ops.load_library(os.environ["STUB_LIBRARY"])
    if stub.contiguous_only:
        torch.ops.stub_device.have_contiguous_tensors_only()
    if stub.kind != "xla":
        torch.utils.rename_privateuse1_backend(stub.type)
        torch.ops.stub_device.add_hooks()
        for name in {stub.kind, stub.type}:
            torch._register_device_module(name, functions(stub))
    dist.Backend.register_backend(stub.backend, _group_maker(stub), devices=[stub.type])
    util.Finalize(None, _note_convolutions, exitpriority=1)


def functions(stub: Stub) -> Any:
    """The vendor's ``torch.<device>``."""
    import torch

    def set_device(index: int) -> None:
        note("set_device", index=index, initialized=torch.distributed.is_initialized())
        torch.ops.stub_device.set_device(index)

    made: Any = types.ModuleType(f"torch.{stub.kind}")
    made.is_available = lambda: stub.count > 0
    made.is_initialized = made.is_available
    made.device_count = lambda: stub.count
    made.current_device = lambda: 0
    made.set_device = set_device
    made.get_device_name = lambda _index: f"Stub of {stub.kind}"
    made._lazy_init = lambda: None
    made._is_in_bad_fork = lambda: False
    made.manual_seed_all = lambda _seed: None
    made.get_amp_supported_dtype = lambda: [getattr(torch, name) for name in stub.numbers]
    made.mem_get_info = lambda _index: (3 << 30, 4 << 30)
    made.utilization = lambda _index: 50
    if stub.bf16 is not None:
        made.is_bf16_supported = lambda: stub.bf16
    if stub.events:
        made.Event = Event
    if stub.own_scaler:
        made.amp = types.SimpleNamespace(GradScaler=_own_scaler(stub))
    return made


class Event:
    """A place in the queue of the device, as torch.cuda.Event is."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self._at = 0.0

    def record(self) -> None:
        import torch

        self._at = max(time.monotonic(), torch.ops.stub_device.queue_ends())

    def query(self) -> bool:
        return time.monotonic() >= self._at

    def synchronize(self) -> None:
        time.sleep(max(0.0, self._at - time.monotonic()))

    def elapsed_time(self, end: Event) -> float:
        if not (self.query() and end.query()):
            raise RuntimeError("the device has not come so far")
        return 1000 * (end._at - self._at)


def _own_scaler(stub: Stub) -> Callable[[], Any]:
    import torch

    def make() -> Any:
        note("own_scaler")
        return torch.amp.GradScaler(stub.kind)

    return make


def _group_maker(stub: Stub) -> Callable[..., Any]:
    import torch
    import torch.distributed as dist

    class Group(torch._C._distributed_c10d.Backend):
        """Collectives of the device: those of gloo on the same memory."""

        def __init__(self, store: Any, rank: int, size: int, timeout: Any) -> None:
            super().__init__(rank, size)
            note("process_group", backend=stub.backend, rank=rank, size=size)
            self._gloo = dist.ProcessGroupGloo(store, rank, size, timeout)

        def getBackendName(self) -> str:  # noqa: N802
            return stub.backend

        def allreduce(self, tensors: Any, options: Any = None) -> Any:
            return self._done(
                "allreduce", tensors, self._gloo.allreduce(_aliases(tensors), options)
            )

        def broadcast(self, tensors: Any, options: Any = None) -> Any:
            return self._done(
                "broadcast", tensors, self._gloo.broadcast(_aliases(tensors), options)
            )

        def allgather(self, outputs: Any, inputs: Any, options: Any = None) -> Any:
            work = self._gloo.allgather(
                [_aliases(group) for group in outputs], _aliases(inputs), options
            )
            return self._done("allgather", outputs, work)

        def _done(self, what: str, tensors: Any, work: Any) -> Any:
            work.wait()
            first = tensors[0][0] if isinstance(tensors[0], list) else tensors[0]
            note("collective", what=what, device=str(first.device))
            future = torch.futures.Future()
            future.set_result(tensors)
            return torch._C._distributed_c10d._create_work_from_future(future)

    return Group


def _aliases(tensors: Any) -> list[Any]:
    import torch

    return [torch.ops.stub_device.alias(tensor) for tensor in tensors]


def _note_convolutions() -> None:
    import torch

    if torch.ops.stub_device.left_sgd_to_cpu():
        note("left_sgd_to_cpu")
    numbers = torch.ops.stub_device.convolution_types()
    note("convolutions", types=[TYPES[number] for number in numbers])
