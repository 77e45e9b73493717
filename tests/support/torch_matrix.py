"""Runs the trainer's core tests with other releases of torch than the one of the development
environment.

``make torch-matrix`` calls this. Each release gets an environment of its own that sees everything
else through the development environment, and that is removed afterwards. The index should offer CPU
builds (TORCH_INDEX_URL). Where it only has builds for CUDA, the wheel is taken without the CUDA
libraries that it wants, and stand-ins that know no device take their place: a few kilobytes instead
of several gigabytes, and what the CPU computes is the same.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path

from cache_folder import CACHE

ROOT = Path(__file__).resolve().parents[2]
RELEASES = ("2.1.2", "2.4.1")
NUMPY_1 = "numpy==1.26.4"
"""Releases of torch before 2.3 were built for it."""
TESTS = (
    "test_any_program.py",
    "test_checkpoint.py",
    "test_cifar100.py",
    "test_config.py",
    "test_data.py",
    "test_device.py",
    "test_execution.py",
    "test_fence.py",
    "test_losses.py",
    "test_models.py",
    "test_modes.py",
    "test_optimisation.py",
    "test_order.py",
    "test_pickles.py",
    "test_ranks.py",
    "test_resume.py",
    "test_sinks.py",
    "test_tracing.py",
    "test_launcher_agent.py",
    "test_launcher_notify.py",
    "test_launcher_hang_processes.py",
    "test_launcher_processes.py",
    "test_launcher_rank.py",
    "test_launcher_torchrun.py",
)
SINCE = {
    # Shapes are checked on the meta device; 2.4 does not yet.
    "test_models.py::test_auxiliary_head_needs_large_images": (2, 5),
    # fully_shard is public.
    "test_any_program.py::test_fsdp_reports_its_progress_and_stops_gracefully": (2, 6),
    # The compiler takes the triton that is there, which is the development environment's.
    "test_execution.py::test_compiled_trains_the_same_or_says_what_is_missing": (2, 6),
    # The device type is a part of torch.
    "test_device.py::test_xpu_is_in_torch": (2, 3),
    "test_device.py::test_power_is_in_watts_whatever_the_vendor_tells[xpu-None-250.0]": (2, 3),
    # The CPU has fused optimizers.
    "test_device.py::test_fused_kernels_are_those_of_the_device": (2, 4),
    # The CPU computes in FP16 too.
    "test_device.py::test_fp16_needs_a_loss_scaler_that_works": (2, 3),
    "test_optimisation.py::test_overflowing_fp16_step_changes_nothing_and_is_counted": (2, 3),
    "test_optimisation.py::test_loss_scale_is_saved_and_restored": (2, 3),
    "test_optimisation.py::test_the_first_step_may_overflow_whatever_is_in_new_memory": (2, 3),
    # The stub of a device is written for newer headers.
    "test_tracing.py::test_device_without_a_profiler_of_its_own_trains_on": (2, 6),
}
"""The first release that has what a test is about."""
QUIET = "ignore:TypedStorage is deprecated:UserWarning"
"""Older releases warn about what they do themselves."""
NO_DEVICE = 100
"""cudaErrorNoDevice; not zero, so that every other library call fails too."""


def main() -> int:
    """Test every release that is asked for; returns how many failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("releases", nargs="*", default=RELEASES, help="default: %(default)s")
    parser.add_argument("--keep", action="store_true", help="leave the environments in .cache")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="files of tests/trainer")
    arguments = parser.parse_args()
    failed = [
        release
        for release in arguments.releases
        if not _passes(release, arguments.tests, arguments.keep)
    ]
    print(
        f"torch matrix: {len(arguments.releases) - len(failed)} passed, failed: "
        f"{', '.join(failed) or 'none'}"
    )
    return len(failed)


def _passes(release: str, tests: list[str], keep: bool) -> bool:
    folder = CACHE / f"torch-{release}"
    try:
        python = _environment(folder, release)
        subprocess.run(
            [python, "-c", "import torch; print('torch', torch.__version__)"], check=True
        )
        left_out = [
            f"--deselect=tests/trainer/{name}"
            for name, first in SINCE.items()
            if _number(release) < first
        ]
        files = [f"tests/trainer/{name}" for name in tests]
        return (
            subprocess.run(
                [
                    python,
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "-W",
                    QUIET,
                    *left_out,
                    *files,
                ],
                cwd=ROOT,
                check=False,
            ).returncode
            == 0
        )
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path, release: str) -> str:
    python = str(folder / "bin" / "python")
    if not (folder / ".complete").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        packages = [f"torch=={release}", *([NUMPY_1] if _number(release) < (2, 3) else [])]
        index = os.environ.get("TORCH_INDEX_URL")
        choice = ["--index-url", index] if index else []
        pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-cache-dir"]
        for package in packages:
            subprocess.run(
                [*pip, *(choice if package.startswith("torch") else []), package], check=True
            )
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        # After its own packages: everything that this environment does not have itself.
        (site / "development.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        stand_in(site / "torch" / "lib")
        (folder / ".complete").touch()
    return python


def _number(release: str) -> tuple[int, int]:
    major, minor = release.split(".")[:2]
    return int(major), int(minor)


def stand_in(libraries: Path) -> None:
    """Make the libraries that those of torch want and nobody has; nothing to do for a CPU build."""
    own = {path.name for path in libraries.glob("*.so*")}
    needed: set[str] = set()
    symbols: dict[str, set[str]] = defaultdict(set)
    loose: set[str] = set()
    for path in [*libraries.glob("*.so*"), *libraries.parent.glob("*.so")]:
        needed |= set(re.findall(r"NEEDED.*\[(.+?)\]", _output("readelf", "-d", str(path))))
        for line in _output(
            "nm", "-D", "--undefined-only", "--with-symbol-versions", str(path)
        ).splitlines():
            name, _, version = line.split()[-1].partition("@")
            if re.match(r"lib(cu|nv)", version):
                symbols[version.lstrip("@")].add(name)
            elif re.match(r"_?(cu|nccl|nvtx|nvJitLink)", name):
                loose.add(name)
    missing = sorted(name for name in needed - own if re.match(r"lib(cu|nv|nccl)", name))
    if loose - set().union(*symbols.values(), set()) and missing:
        symbols[""] = loose
    for position, name in enumerate(missing):
        _make(libraries / name, symbols.get(name, set()), symbols[""] if position == 0 else set())


def _make(library: Path, versioned: set[str], plain: set[str]) -> None:
    draft = library.with_suffix(".c")
    bodies = [_body(name) for name in sorted(versioned | plain)]
    draft.write_text("\n".join(bodies) + "\n")
    script = library.with_suffix(".map")
    script.write_text(f"{library.name} {{ global: *; }};\n")
    version = [f"-Wl,--version-script={script}"] if versioned else []
    flags = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{library.name}", *version]
    subprocess.run(["gcc", *flags, str(draft), "-o", str(library)], check=True)


def _body(name: str) -> str:
    if name.endswith(("String", "Name", "StringA")) or "GetError" in name:
        return f'const char *{name}(void) {{ return "no device"; }}'
    return f"int {name}(void) {{ return {NO_DEVICE}; }}"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    raise SystemExit(main())
