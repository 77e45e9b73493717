"""A pod template of another operator, as ``spec.template``.

Most of it is taken over as it is. What another controller put in, and what the operator's own pod
has already, is left out with a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

from pydantic import ValidationError

from inception_operator.accelerators.profile import Profile
from inception_operator.contract.names import (
    ASSIGNMENT_MOUNT,
    CONTAINER,
    LAUNCHER_MOUNT,
    LAUNCHER_PORT,
)
from inception_operator.contract.types import Json
from inception_operator.spec.template import (
    FREE_NAMES,
    RESERVED_NAMES,
    RESERVED_PREFIXES,
    PodTemplate,
)
from inception_operator.spec.validation import Model, first_problem

from . import command, devices
from .draft import Draft
from .ledger import Field

# The ranks' own variables, and those that other controllers give torchrun.
_OTHERS_NAMES: Final = frozenset(
    ("LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "NNODES", "NPROC_PER_NODE", "GROUP_WORLD_SIZE")
)
# Labels and annotations that only the old controller gives its pods.
_OTHERS_LABELS: Final = re.compile(
    r"metadata\.(labels|annotations)\['(training\.kubeflow\.org|trainer\.kubeflow\.org|"
    r"batch\.kubernetes\.io|jobset\.sigs\.k8s\.io|volcano\.sh|batch\.volcano\.sh)/.*'\]"
)
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_RENDEZVOUS_PORTS: Final = frozenset((23456, 29400, 29500))
_SHARED: Final = frozenset(("resources", "env", "ports", "command", "args", "image", "name"))


def read(
    template: Field, names: Collection[str], draft: Draft, profiles: Mapping[str, Profile]
) -> Field:
    """Take a pod template over into the draft, all but the command; gives the training container.

    It is the one called by one of the ``names``, else the first.
    """
    check_shape(template, PodTemplate)
    _read_metadata(template["metadata"], draft)
    spec = template["spec"]
    container = training_container(spec, names)
    if container is None:
        raise spec["containers"].refusal("there is no container", "add the one that trains")
    for child in spec.children():
        _SPEC.get(child.key, _take_spec)(child, draft)
    _mount_token(spec, draft)
    for other in spec["containers"].children():
        if other.path != container.path:
            draft.sidecars.append(_sidecar(other))
    _read_trainer(container, draft, profiles)
    _warn_of_restrictions(spec, draft)
    return container


def check_shape(field: Field, model: type[Model]) -> None:
    """Refuse what is no pod template, or part of one, so that the rest need not ask again."""
    if not field.present:
        return
    try:
        model.model_validate(field.value, by_name=False)
    except ValidationError as error:
        path, problem = first_problem(error)
        raise field.refusal(f"{path}: {problem}" if path else problem, "correct it") from error


def training_container(spec: Field, names: Collection[str]) -> Field | None:
    """The container that trains."""
    found = [each for each in spec["containers"].children() if isinstance(each.value, dict)]
    named = (each for each in found if each.value.get("name") in names)
    return next(named, found[0] if found else None)


def _read_metadata(metadata: Field, draft: Draft) -> None:
    for child in metadata.children():
        if child.key in ("labels", "annotations"):
            draft.pod_metadata[child.key] = child.take()
        else:
            child.drop("pods are named by the operator")


def _take_spec(child: Field, draft: Draft) -> None:
    draft.pod[child.key] = child.take()


def _read_restart_policy(child: Field, draft: Draft) -> None:
    child.settle()
    if child.value != "Never":
        child.change("it is Never: the operator restarts all ranks together")


def _mount_token(spec: Field, draft: Draft) -> None:
    """Whoever names a service account means to use it, and the operator mounts no token."""
    account = spec["serviceAccountName"]
    if account.value and "automountServiceAccountToken" not in draft.pod:
        draft.pod["automountServiceAccountToken"] = True
        account.change(
            "its token is mounted as before by automountServiceAccountToken: true",
            "remove that where the program does not call the API server",
        )


def _read_claims(child: Field, draft: Draft) -> None:
    _take_spec(child, draft)
    child.change(
        "the pods claim the same, but the operator does not know it for devices",
        "move it to spec.accelerator.claims with the profile of the vendor",
    )


def _leave(child: Field, draft: Draft) -> None:
    """The containers, which are read by themselves."""
    if not child.value:
        child.settle()


def _read_security(child: Field, draft: Draft) -> None:
    draft.pod[child.key] = _own_user(child)


_SPEC: Final[Mapping[str, Callable[[Field, Draft], None]]] = {
    "containers": _leave,
    "restartPolicy": _read_restart_policy,
    "resourceClaims": _read_claims,
    "securityContext": _read_security,
}


def _own_user(context: Field) -> Json:
    """A security context, with what root needs where the operator's own forbids root."""
    taken: Json = context.take()
    if isinstance(taken, dict) and taken.get("runAsUser") == 0 and "runAsNonRoot" not in taken:
        taken["runAsNonRoot"] = False
        context.change("with runAsNonRoot: false, because the user is root", "choose another user")
    return taken


def _sidecar(container: Field) -> Json:
    taken: Json = container.take()
    if taken.get("name") == CONTAINER:
        taken["name"] = f"{CONTAINER}-sidecar"
        container["name"].change(
            f"it is called {CONTAINER}-sidecar: {CONTAINER} is the container that trains"
        )
    return taken


def _read_trainer(container: Field, draft: Draft, profiles: Mapping[str, Profile]) -> None:
    container["name"].settle()
    draft.image = container["image"].text()
    for child in container.children():
        if child.key in _SHARED:
            continue
        if child.key in _PROBES:
            child.drop(
                "the launcher watches the ranks and tells the kubelet when it is ready",
                "set spec.failurePolicy.progressDeadlineSeconds to end a training that hangs",
            )
        elif child.key in ("restartPolicy", "restartPolicyRules"):
            child.drop("the operator restarts all ranks together", "see spec.failurePolicy")
        elif child.key == "volumeMounts":
            draft.trainer[child.key] = _mounts(child)
        elif child.key == "securityContext":
            draft.trainer[child.key] = _container_security(child)
        else:
            draft.trainer[child.key] = child.take()
    if container["env"].present:
        draft.trainer["env"] = read_env(container["env"])
    _read_ports(container["ports"], draft)
    devices.apply(draft, container["resources"], profiles)


def read_env(env: Field) -> list[Json]:
    """Variables of the container that trains, without those that operator and launcher set."""
    kept = []
    if not env.value:
        env.settle()
    for entry in env.children():
        name = str(entry["name"].value or "")
        source = str(entry["valueFrom"]["fieldRef"]["fieldPath"].value or "")
        if is_reserved(name):
            entry.drop(f"{name} is set by the operator or the launcher for every rank")
        elif _OTHERS_LABELS.fullmatch(source):
            entry.drop(
                f"{source} is given to pods by the old controller alone",
                "let the program read RANK, GROUP_RANK or INCEPTION_JOB",
            )
        else:
            kept.append(entry.take())
    return kept


def is_reserved(name: str) -> bool:
    """Whether a variable is the operator's or the launcher's to set."""
    if name in FREE_NAMES:
        return False
    return name in RESERVED_NAMES | _OTHERS_NAMES or name.startswith(RESERVED_PREFIXES)


def _mounts(mounts: Field) -> list[Json]:
    kept = []
    if not mounts.value:
        mounts.settle()
    for mount in mounts.children():
        if mount["mountPath"].value in (LAUNCHER_MOUNT, ASSIGNMENT_MOUNT):
            mount.drop("the operator mounts something of its own there", "choose another path")
        else:
            kept.append(mount.take())
    return kept


def _container_security(context: Field) -> Json:
    taken = _own_user(context)
    added = [each.value for each in context["capabilities"]["add"].children()]
    strong = isinstance(taken, dict) and (taken.get("privileged") or "SYS_ADMIN" in added)
    if strong and "allowPrivilegeEscalation" not in taken:
        taken["allowPrivilegeEscalation"] = True
        context.change(
            "with allowPrivilegeEscalation: true, without which the API server refuses it",
            "do without privileged, where devices come from a device plug-in",
        )
    return taken


def _read_ports(ports: Field, draft: Draft) -> None:
    kept = []
    if ports.present and not ports.value:
        ports.settle()
    for port in ports.children():
        number = port["containerPort"].value
        if number == LAUNCHER_PORT:
            port.drop("the launcher listens there", "let the program take another port")
        elif number in _RENDEZVOUS_PORTS or port["name"].value == "pytorchjob-port":
            port.drop("ranks meet at MASTER_ADDR and MASTER_PORT of the operator")
        else:
            kept.append(port.take())
    if kept:
        draft.trainer["ports"] = kept


def _warn_of_restrictions(spec: Field, draft: Draft) -> None:
    """Say once that the pods are more restricted than those of the other operator."""
    given = (draft.pod.get("securityContext"), draft.trainer.get("securityContext"))
    contexts = [each for each in given if isinstance(each, dict)]
    if any({"runAsUser", "readOnlyRootFilesystem"} & set(each) for each in contexts):
        return
    spec["securityContext"].change(
        "it is user 10001 with a read-only root file system, where only /tmp, HOME and volumes can "
        "be written, unless the template says otherwise",
        "set runAsUser here and readOnlyRootFilesystem: false in the container for an image that "
        "needs more",
    )


def _words(container: Field) -> list[object]:
    """The command line of a container; nothing for any other object."""
    return [each.value for key in ("command", "args") for each in container[key].children()]


def compare(first: Field, other: Field, role: str) -> None:
    """Settle what two templates have in common, and note each difference of the other one.

    ``role`` is whose template all pods get.
    """
    if not other.present or first.value == other.value:
        other.settle()
        return
    if isinstance(first.value, dict) and isinstance(other.value, dict):
        same = command.is_same(_words(first), _words(other))
        for child in other.children():
            if same and child.key in ("command", "args"):
                child.settle()
            else:
                compare(first[child.key], child, role)
        return
    both = isinstance(first.value, list) and isinstance(other.value, list)
    if both and len(first.value) == len(other.value) and other.key not in ("command", "args"):
        for index, child in enumerate(other.value):
            if child is not None:
                compare(first[index], other[index], role)
        return
    other.drop(f"all nodes are alike and get what {role} has", "make both alike, or set it there")
