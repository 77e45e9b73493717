"""Documents of several kinds together: each training as an InceptionTraining, the rest as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from inception_operator.accelerators.profile import Profile
from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.contract.errors import SpecError
from inception_operator.contract.types import Json
from inception_operator.spec.job import parse

from . import jobset, mpijob, pytorchjob, trainjob, volcano
from .draft import Draft
from .ledger import Ledger
from .notes import Note, Outcome, RefusedError

_GROUPS: Final = {
    "PyTorchJob": "kubeflow.org",
    "MPIJob": "kubeflow.org",
    "TrainJob": "trainer.kubeflow.org",
    "Job": "batch.volcano.sh",
    "JobSet": "jobset.x-k8s.io",
}
# Kinds of the same projects that nothing can be made of, and versions that were otherwise.
_FOREIGN_GROUPS: Final = frozenset((*_GROUPS.values(), "batch.x-k8s.io"))
_VERSIONS: Final = {
    "PyTorchJob": ("v1",),
    "MPIJob": ("v2beta1",),
    "TrainJob": ("v1alpha1",),
    "Job": ("v1alpha1",),
    "JobSet": ("v1alpha2",),
}


@dataclass(frozen=True)
class Conversion:
    """What came of the documents, in their order; ``trainings`` of the resources are new."""

    resources: tuple[Json, ...]
    notes: tuple[Note, ...]
    trainings: int = 0


@dataclass
class _Run:
    """One conversion under way."""

    runtimes: dict[tuple[str, str], Ledger] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    resources: list[Json] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    trainings: int = 0


def convert(documents: Sequence[Json]) -> Conversion:
    """The InceptionTrainings of these documents, and a note for whatever is not the same.

    Documents of other kinds (a ConfigMap with the program, a claim) stay as they are.
    """
    run = _Run()
    flat = list(_flatten(documents))
    for document in flat:
        if _is_runtime(document):
            ledger = Ledger(_title(document), document)
            run.runtimes[document["kind"], _name(document)] = ledger
    for document in flat:
        _convert_one(run, document)
    for ledger in run.runtimes.values():
        ledger.close()
        if ledger.name not in run.used:
            reason = "no TrainJob among these documents refers to it"
            note = Note(ledger.name, "kind", Outcome.DROPPED, reason, "convert it beside one")
            run.notes.append(note)
        else:
            run.notes += ledger.notes
    # A runtime of two TrainJobs says everything twice.
    return Conversion(tuple(run.resources), tuple(dict.fromkeys(run.notes)), run.trainings)


def _flatten(documents: Sequence[Any]) -> Iterator[Json]:
    """The objects, also those in lists; empty documents are none."""
    for document in documents:
        if not isinstance(document, dict) or not document:
            continue
        items = document.get("items")
        if str(document.get("kind", "")).endswith("List") and isinstance(items, list):
            yield from _flatten(items)
        else:
            yield document


def _is_runtime(document: Json) -> bool:
    versions = [f"{_GROUPS['TrainJob']}/{version}" for version in _VERSIONS["TrainJob"]]
    return document.get("kind") in trainjob.RUNTIMES and document.get("apiVersion") in versions


def _group(document: Json) -> str:
    group, slash, _ = str(document.get("apiVersion") or "").partition("/")
    return group if slash else ""


def _name(document: Json) -> str:
    metadata = document.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    return str(found.get("name") or found.get("generateName") or "")


def _title(document: Json) -> str:
    return f"{document.get('kind')} {_name(document)}".strip()


def _convert_one(run: _Run, document: Json) -> None:
    kind, group = str(document.get("kind")), _group(document)
    if group not in _FOREIGN_GROUPS:
        run.resources.append(document)
        return
    if _is_runtime(document):
        return
    ledger = Ledger(_title(document), document)
    try:
        draft = _read(ledger, kind, group, run)
        resource = draft.resource()
        _check(ledger, resource)
    except RefusedError as refused:
        run.notes.append(refused.note)
        return
    ledger.close()
    run.resources.append(resource)
    run.notes += ledger.notes
    run.trainings += 1


def _read(ledger: Ledger, kind: str, group: str, run: _Run) -> Draft:
    profiles = _profiles()
    root = ledger.root
    version = str(root["apiVersion"].value).rpartition("/")[2]
    if _GROUPS.get(kind) != group:
        known = ", ".join(sorted(_GROUPS))
        raise root["kind"].refusal(
            f"a {kind} of {group} is no training with PyTorch", f"convert one of {known}"
        )
    if version not in _VERSIONS[kind]:
        raise root["apiVersion"].refusal(
            f"version {version} of it is not known", f"bring it to {', '.join(_VERSIONS[kind])}"
        )
    if kind == "TrainJob":
        reference = root["spec"]["runtimeRef"]
        wanted = (
            str(reference["kind"].value or trainjob.RUNTIMES[0]),
            str(reference["name"].value),
        )
        if wanted in run.runtimes:
            run.used.add(run.runtimes[wanted].name)
        return trainjob.convert(ledger, profiles, run.runtimes)
    return _CONVERTERS[kind](ledger, profiles)


_CONVERTERS: Final = {
    "PyTorchJob": pytorchjob.convert,
    "MPIJob": mpijob.convert,
    "Job": volcano.convert,
    "JobSet": jobset.convert,
}


@cache
def _profiles() -> Mapping[str, Profile]:
    return load_profiles()


def _check(ledger: Ledger, resource: Json) -> None:
    """Let the operator itself judge what was made, so that nothing comes out that it refuses."""
    metadata = {"name": "generated", "namespace": "default", "uid": "none"} | resource["metadata"]
    try:
        resolve(parse({**resource, "metadata": metadata}), _profiles())
    except SpecError as error:
        words = str(error).removeprefix(f"{error.path}: ")
        problem = f"the operator would refuse this field of the training: {words}"
        remedy = "correct what it was made of"
        note = Note(ledger.name, error.path, Outcome.REFUSED, problem, remedy)
        raise RefusedError(note) from error
