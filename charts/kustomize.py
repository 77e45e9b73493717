"""Makes the kustomize base and its overlays from the chart.

The base is what every installation has. The overlay ``cluster-wide`` adds rights to all namespaces,
``namespaced`` those to one, whose folder is to be copied for each further one.
"""

from __future__ import annotations

from pathlib import Path

from charts.plain import RELEASE, Object, crd_text, dump, namespace_object, plain_objects

EXAMPLE = "team-a"
NAMESPACED = (f"--set=watchNamespaces={{{EXAMPLE}}}",)
_HEAD = "# Made from the chart by charts/sync.py"
_KIND = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"


def texts(helm: str, folder: Path) -> dict[Path, str]:
    """All files below ``folder`` with their texts."""
    wide, narrow = plain_objects(helm), plain_objects(helm, *NAMESPACED)
    base = [item for item in wide if item in narrow or item["kind"] == "Deployment"]
    rights = [item for item in narrow if item["metadata"].get("namespace") == EXAMPLE]
    for item in rights:
        # Each overlay that takes the folder names its namespace.
        del item["metadata"]["namespace"]
    files = {
        "base/kustomization.yaml": _kustomization(
            "what every installation has; install an overlay",
            ["namespace.yaml", "crd.yaml", "operator.yaml"],
        ),
        "base/namespace.yaml": _file(dump(namespace_object())),
        "base/crd.yaml": _file(crd_text()),
        "base/operator.yaml": _file(dump(*base)),
        "rights/kustomization.yaml": _kustomization("rights in one namespace", ["rights.yaml"]),
        "rights/rights.yaml": _file(dump(*rights)),
        "overlays/cluster-wide/kustomization.yaml": _kustomization(
            "kubectl apply --server-side -k manifests/kustomize/overlays/cluster-wide",
            ["../../base", "rights.yaml"],
        ),
        "overlays/cluster-wide/rights.yaml": _file(dump(*_rest(wide, base))),
        "overlays/namespaced/kustomization.yaml": _kustomization(
            "copy the folder, and in it one folder for each namespace; they must exist",
            ["../../base", EXAMPLE],
            _patch(),
        ),
        f"overlays/namespaced/{EXAMPLE}/kustomization.yaml": _kustomization(
            "the namespace that the operator looks after",
            ["../../../rights"],
            f"namespace: {EXAMPLE}\n",
        ),
    }
    return {folder / name: text for name, text in files.items()}


def _rest(objects: list[Object], base: list[Object]) -> list[Object]:
    return [item for item in objects if item not in base]


def _file(text: str) -> str:
    return f"{_HEAD}.\n{text}"


def _kustomization(remark: str, resources: list[str], more: str = "") -> str:
    names = "".join(f"  - {name}\n" for name in resources)
    return f"{_HEAD}: {remark}.\n{_KIND}resources:\n{names}{more}"


def _patch() -> str:
    """The namespaces as an argument of the operator, by comma."""
    return f"""patches:
  - target: {{kind: Deployment, name: {RELEASE}}}
    patch: |-
      - {{op: add, path: /spec/template/spec/containers/0/args/-, value: --namespaces}}
      - {{op: add, path: /spec/template/spec/containers/0/args/-, value: {EXAMPLE}}}
"""
