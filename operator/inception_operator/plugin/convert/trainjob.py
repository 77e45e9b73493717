"""``TrainJob`` of ``trainer.kubeflow.org/v1alpha1``, with the runtime that it refers to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from inception_operator.accelerators.profile import Profile
from inception_operator.contract.types import Json
from inception_operator.pod.build import merge
from inception_operator.spec.template import PodSpec, PodTemplate

from . import command, devices, jobset, kubeflow, pods
from .draft import Draft, begin
from .ledger import Field, Ledger

RUNTIMES: Final = ("ClusterTrainingRuntime", "TrainingRuntime")
_STEP: Final = "trainer.kubeflow.org/trainjob-ancestor-step"
_CONTAINERS: Final = ("node", "trainer")
# The runtime that every installation brings: torchrun on pods of PyTorch's image.
_BUILT_IN: Final = "torch-distributed"
_OTHERS: Final = ("mpi", "flux", "jax", "xgboost")
_PATCHES: Final = ("podTemplateOverrides", "podSpecOverrides", "runtimePatches")


def convert(
    ledger: Ledger, profiles: Mapping[str, Profile], runtimes: Mapping[tuple[str, str], Ledger]
) -> Draft:
    """The training of a TrainJob; ``runtimes`` are the documents beside it, by kind and name."""
    job = ledger.root
    draft = begin(job)
    spec, trainer = job["spec"], job["spec"]["trainer"]
    runtime = _runtime(spec["runtimeRef"], runtimes)
    _read_numbers(trainer, runtime, draft)
    group = _training_group(runtime) if runtime is not None else None
    container = _read_group(group, draft, profiles) if group is not None else None
    for key in _PATCHES:
        for patch in spec[key].children():
            _read_patch(patch, draft)
    _read_trainer(trainer, container, draft, profiles)
    _read_command(trainer, container, runtime, draft)
    if runtime is not None and group is not None:
        jobset.read_policies(runtime["template"]["spec"], draft, [jobset.role_of(group)])
        kubeflow.warn_of_group(group["template"]["spec"]["template"]["spec"], draft)
    _read_policies(spec, draft)
    if draft.image is None:
        trainer["image"].change(
            "the image of the runtime is not in these documents; the operator's own is taken",
            "set spec.image, or convert the runtime beside it",
        )
    return draft


def _runtime(reference: Field, runtimes: Mapping[tuple[str, str], Ledger]) -> Field | None:
    """The spec of the runtime, None where only its name is known."""
    name = str(reference["name"].value or "")
    kind = str(reference["kind"].value or RUNTIMES[0])
    for key in ("apiGroup", "kind", "name"):
        reference[key].settle()
    found = runtimes.get((kind, name))
    if found is not None:
        for key in ("apiVersion", "kind"):
            found.root[key].settle()
        for child in found.root["metadata"].children():
            if child.key in ("name", "namespace"):
                child.settle()
            else:
                child.drop("no runtime is made")
        policy = found.root["spec"]["mlPolicy"]
        other = next((key for key in _OTHERS if policy[key].present), None)
        if other is not None:
            raise reference.refusal(
                f"the runtime {name} brings the ranks together by {other}",
                "only runtimes of torch can be carried over",
            )
        return found.root["spec"]
    if not name.startswith("torch") or name.startswith("torchtune"):
        raise reference.refusal(
            f"the runtime {name} is not in these documents and not one of torchrun",
            "convert it beside the TrainJob (kubectl get clustertrainingruntimes -o yaml)",
        )
    reference.change(
        f"the runtime {name} is not in these documents, so nothing of it is carried over",
        "convert it beside the TrainJob (kubectl get clustertrainingruntimes -o yaml), if it was "
        "changed in the cluster",
    )
    return None


def _training_group(runtime: Field) -> Field | None:
    """The part of a runtime whose pods train; says what becomes of its other parts."""
    runtime["podGroupPolicy"].drop(
        "pods are placed one by one", "let Kueue admit the training as a whole"
    )
    runtime["template"]["metadata"].drop("there is no JobSet in between")
    groups = list(runtime["template"]["spec"]["replicatedJobs"].children())
    chosen = next((each for each in groups if _trains(each)), groups[-1] if groups else None)
    for group in groups:
        if group != chosen:
            group.drop("it does not train", "make it an init container, or a Job of its own")
    return chosen


def _read_group(group: Field, draft: Draft, profiles: Mapping[str, Profile]) -> Field:
    """The pods of a runtime; gives the container that trains."""
    jobset.read_replicated(group, draft)
    return pods.read(group["template"]["spec"]["template"], _CONTAINERS, draft, profiles)


def _trains(group: Field) -> bool:
    label = group["template"]["metadata"]["labels"][_STEP].value
    return label == "trainer" if label is not None else group["name"].value in _CONTAINERS


def _read_numbers(trainer: Field, runtime: Field | None, draft: Draft) -> None:
    """Nodes, and between which numbers of them the training may go on."""
    nodes = trainer["numNodes"].number()
    if runtime is not None:
        otherwise = runtime["mlPolicy"]["numNodes"].number()
        nodes = otherwise if nodes is None else nodes
        policy = runtime["mlPolicy"]["torch"]["elasticPolicy"]
        least, most = policy["minNodes"].number(), policy["maxNodes"].number()
        restarts = policy["maxRestarts"].number()
        if restarts is not None:
            draft.failure_policy["maxRestarts"] = restarts
        policy["metrics"].drop(
            "no HorizontalPodAutoscaler is made",
            "make one whose scaleTargetRef is this InceptionTraining: it has the subresource scale",
        )
        if least is not None or most is not None:
            nodes = nodes or most or least
            draft.elastic = {"minNodes": min(least or 1, nodes or 1)}
            if most is not None:
                draft.elastic["maxNodes"] = max(most, nodes or 1)
    draft.nodes = 1 if nodes is None else nodes


def _read_patch(patch: Field, draft: Draft) -> None:
    """What a TrainJob changes of its runtime's pods, in the three shapes that versions have."""
    targets = list(patch["targetJobs"].children())
    names = [str(each["name"].value) for each in targets]
    if names and not set(names) & set(_CONTAINERS):
        patch.drop(f"{', '.join(names)} does not train")
        return
    for target in targets:
        target["name"].settle()
    if patch["manager"].present:
        patch["manager"].settle()
        patch["time"].settle()
        jobs = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        for job in jobs.children():
            if job["name"].value in _CONTAINERS:
                job["name"].settle()
                _patch_pod(job["template"]["spec"]["template"], draft)
    elif patch["spec"].present or patch["metadata"].present:
        _patch_pod(patch, draft)
    else:
        _patch_spec(patch, draft)


def _patch_pod(template: Field, draft: Draft) -> None:
    pods.check_shape(template, PodTemplate)
    _read_labels(template["metadata"], draft)
    _patch_spec(template["spec"], draft)


def _patch_spec(spec: Field, draft: Draft) -> None:
    pods.check_shape(spec, PodSpec)
    for child in spec.children():
        if child.key == "containers":
            _patch_containers(child, draft)
        elif child.key != "targetJobs":
            draft.pod = merge(draft.pod, {child.key: child.take()})


def _read_labels(metadata: Field, draft: Draft) -> None:
    for key in ("labels", "annotations"):
        if metadata[key].present:
            draft.pod_metadata = merge(draft.pod_metadata, {key: metadata[key].take()})


def _patch_containers(containers: Field, draft: Draft) -> None:
    for container in containers.children():
        if container["name"].value not in _CONTAINERS:
            draft.sidecars = merge(
                {"containers": draft.sidecars}, {"containers": [container.take()]}
            )["containers"]
            continue
        container["name"].settle()
        for child in container.children():
            if child.key == "env":
                _add_env(child, draft)
            elif child.key != "name":
                draft.trainer = merge(draft.trainer, {child.key: child.take()})


def _add_env(env: Field, draft: Draft) -> None:
    if not all(isinstance(each.value, dict) for each in env.children()):
        raise env.refusal("must be a list of objects", "correct it")
    before: list[Json] = draft.trainer.get("env") or []
    merged = merge({"env": before}, {"env": pods.read_env(env)})["env"]
    if merged:
        draft.trainer["env"] = merged


def _read_trainer(
    trainer: Field, container: Field | None, draft: Draft, profiles: Mapping[str, Profile]
) -> None:
    """What the TrainJob itself says of the container that trains."""
    draft.image = trainer["image"].text() or draft.image
    if trainer["env"].present:
        _add_env(trainer["env"], draft)
    if trainer["resourcesPerNode"].present:
        if container is not None:
            container["resources"].drop("resourcesPerNode goes before it")
        devices.apply(draft, trainer["resourcesPerNode"], profiles)


def _read_command(
    trainer: Field, container: Field | None, runtime: Field | None, draft: Draft
) -> None:
    """The command of the TrainJob, else that of the runtime, with the ranks of either."""
    ranks = trainer["numProcPerNode"]
    if runtime is not None:
        otherwise = runtime["mlPolicy"]["torch"]["numProcPerNode"]
        if ranks.present:
            otherwise.drop("the TrainJob's own number goes before it")
        else:
            ranks = otherwise
    fields = {}
    for key in ("command", "args"):
        fields[key] = trainer[key]
        if container is not None and not trainer[key].value:
            fields[key] = container[key]
        elif container is not None:
            container[key].drop("the TrainJob's own goes before it")
    command.apply(draft, fields["command"], fields["args"], ranks, default="auto")


def _read_policies(spec: Field, draft: Draft) -> None:
    if spec["suspend"].present:
        draft.run_policy["suspend"] = spec["suspend"].take()
    kubeflow.read_deadline(spec["activeDeadlineSeconds"], draft)
    kubeflow.read_manager(spec["managedBy"], draft)
    spec["initializer"].drop(
        "nobody fetches data or a model before the training",
        "add an init container to spec.template, or let the program read it from where it is",
    )
    for key in ("labels", "annotations"):
        spec[key].drop("there is no JobSet in between", "see spec.template.metadata")
