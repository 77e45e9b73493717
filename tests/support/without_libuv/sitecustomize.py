"""Makes every torch in whose path this lies behave as one that was built without libuv."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULE = "torch.distributed"


class _Finder(MetaPathFinder):
    """Finds one module as everybody else would, and has it changed when it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        spec.loader = _Changing(spec.loader)
        return spec


class _Changing(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        whole: Any = module.TCPStore

        def store(*arguments: Any, use_libuv: bool = True, **options: Any) -> Any:
            if use_libuv:
                raise RuntimeError("use_libuv was requested but PyTorch was built without libuv")
            return whole(*arguments, use_libuv=False, **options)

        for name in (MODULE, f"{MODULE}.rendezvous"):
            vars(sys.modules[name])["TCPStore"] = store


sys.meta_path.insert(0, _Finder())
