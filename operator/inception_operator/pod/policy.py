"""Whether a pod keeps to a level of the Pod Security Standards, asked of the pod that is created.

The operator can be told a level for all jobs (``--pod-policy``). Every pod is checked when the
template, the accelerator's row and the operator's own part have been merged, so it does not matter
through which of them a field got in. Fields are allowed by name: a field or a kind of volume that
this module does not know is refused, whatever it may turn out to do. Lists of what is forbidden
have been bypassed through the next field that nobody had thought of, for example in Argo Workflows
(CVE-2026-31892, CVE-2026-42296).

The levels are those of kubernetes.io/docs/concepts/security/pod-security-standards, read for
Kubernetes 1.36; tests/integration/test_pod_policy.py holds them against the API server's own
admission. Where in doubt this module refuses more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from inception_operator.contract.names import PodPolicy
from inception_operator.contract.types import Json

from .policy_names import (
    BASELINE_CAPABILITIES,
    BASELINE_VOLUMES,
    CONTAINER_CONTEXT_FIELDS,
    CONTAINER_FIELDS,
    POD_CONTEXT_FIELDS,
    POD_FIELDS,
    RESTRICTED_CAPABILITIES,
    RESTRICTED_VOLUMES,
    SYSCTLS,
)

SHOWN: Final = 3
_MAX_NAME: Final = 63
_APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_NO_VALUE: Final = (None, "")
_OFF: Final = (None, False)

_SELINUX_TYPES: Final = (
    None,
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
)
_SECCOMP_TYPES: Final = ("RuntimeDefault", "Localhost")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS: Final = ("postStart", "preStop")


def find_violations(pod: Json, level: str) -> tuple[str, ...]:
    """What of a pod the level does not allow, each with its field; empty for a pod that keeps to
    it.
    """
    if level == PodPolicy.OFF:
        return ()
    check = _Check(restricted=level == PodPolicy.RESTRICTED)
    check.pod(pod)
    return tuple(check.problems)


def explain(violations: Collection[str], level: str) -> str:
    """The violations as one sentence for the author of the job, with the remedy."""
    listed = list(violations)[:SHOWN]
    more = len(violations) - len(listed)
    text = "; ".join(listed) + (f"; and {more} more" if more else "")
    return (
        f"no pod is made, because the operator's pod policy is {level}: {text}; change the "
        "template or the accelerator, or ask whoever runs the operator for another --pod-policy"
    )


class _Check:
    """One look at one pod; collects what is not allowed in ``problems``.

    The template may hold anything at any place, so every value is asked for its type first.
    """

    def __init__(self, *, restricted: bool) -> None:
        self.problems: list[str] = []
        self._restricted = restricted
        self._volumes = RESTRICTED_VOLUMES if restricted else BASELINE_VOLUMES
        self._capabilities = RESTRICTED_CAPABILITIES if restricted else BASELINE_CAPABILITIES

    def pod(self, pod: Json) -> None:
        """Look at everything: fields of the pod, its volumes and its containers."""
        self._annotations(pod["metadata"].get("annotations") or {})
        spec = pod["spec"]
        self._fields("spec", spec, POD_FIELDS)
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            self._one_of(f"spec.{field}", spec.get(field), _OFF, "false or left out")
        context_path = "spec.securityContext"
        context = self._object(context_path, spec.get("securityContext"))
        self._fields(context_path, context, POD_CONTEXT_FIELDS)
        self._shared_context(context_path, context)
        for path, sysctl in self._entries(f"{context_path}.sysctls", context.get("sysctls")):
            self._one_of(f"{path}.name", sysctl.get("name"), SYSCTLS, "a safe one")
        for path, volume in self._entries("spec.volumes", spec.get("volumes")):
            self._volume(path, volume)
        for field in ("initContainers", "containers"):
            for path, container in self._entries(f"spec.{field}", spec.get(field)):
                self._container(path, container, context)

    def _annotations(self, annotations: Json) -> None:
        # The form before Kubernetes 1.30, which the API server still turns into the field.
        for name, value in annotations.items():
            if name.startswith(_APPARMOR):
                allowed = value in ("", "runtime/default") or value.startswith("localhost/")
                if not allowed:
                    path = f"metadata.annotations[{_short(name)}]"
                    self._problem(path, "must be runtime/default or localhost/...")

    def _volume(self, path: str, volume: Json) -> None:
        for kind, source in volume.items():
            if kind != "name" and source is not None and kind not in self._volumes:
                words = ", ".join(sorted(RESTRICTED_VOLUMES)) if self._restricted else ""
                instead = f"; these kinds are: {words}" if words else ""
                self._problem(f"{path}.{_short(kind)}", f"is not allowed{instead}")

    def _container(self, path: str, container: Json, of_pod: Json) -> None:
        self._fields(path, container, CONTAINER_FIELDS)
        for each, port in self._entries(f"{path}.ports", container.get("ports")):
            self._one_of(f"{each}.hostPort", port.get("hostPort"), (None, 0), "0 or left out")
        self._hosts(path, container)
        path = f"{path}.securityContext"
        context = self._object(path, container.get("securityContext"))
        self._fields(path, context, CONTAINER_CONTEXT_FIELDS)
        self._shared_context(path, context)
        self._one_of(f"{path}.privileged", context.get("privileged"), _OFF, "false or left out")
        proc = (*_NO_VALUE, "Default")
        self._one_of(f"{path}.procMount", context.get("procMount"), proc, "Default or left out")
        capabilities = self._object(f"{path}.capabilities", context.get("capabilities"))
        added = self._list(f"{path}.capabilities.add", capabilities.get("add"))
        for capability in added:
            allowed = f"one of {', '.join(sorted(self._capabilities))}"
            self._one_of(f"{path}.capabilities.add", capability, self._capabilities, allowed)
        if self._restricted:
            self._restricted_container(path, context, of_pod)

    def _restricted_container(self, path: str, context: Json, of_pod: Json) -> None:
        """What a container must say, itself or through its pod: saying nothing is not enough."""
        escalation = context.get("allowPrivilegeEscalation")
        self._one_of(f"{path}.allowPrivilegeEscalation", escalation, (False,), "false")
        capabilities = context.get("capabilities")
        dropped = capabilities.get("drop") if isinstance(capabilities, dict) else None
        if not isinstance(dropped, list) or "ALL" not in dropped:
            self._problem(f"{path}.capabilities.drop", "must hold ALL")
        if context.get("runAsNonRoot") is None and of_pod.get("runAsNonRoot") is not True:
            self._problem(f"{path}.runAsNonRoot", "must be true, here or for the pod")
        if _type_of(context, "seccompProfile") is None:
            self._one_of(
                f"{path}.seccompProfile.type",
                _type_of(of_pod, "seccompProfile"),
                _SECCOMP_TYPES,
                "RuntimeDefault or Localhost, here or for the pod",
            )

    def _shared_context(self, path: str, context: Json) -> None:
        """Fields that a pod's and a container's securityContext have alike."""
        seccomp = _type_of(context, "seccompProfile")
        allowed: tuple[Any, ...] = (None, *_SECCOMP_TYPES)
        self._one_of(f"{path}.seccompProfile.type", seccomp, allowed, "RuntimeDefault or Localhost")
        apparmor = _type_of(context, "appArmorProfile")
        self._one_of(
            f"{path}.appArmorProfile.type", apparmor, allowed, "RuntimeDefault or Localhost"
        )
        options = self._object(f"{path}.seLinuxOptions", context.get("seLinuxOptions"))
        kind = options.get("type")
        self._one_of(f"{path}.seLinuxOptions.type", kind, _SELINUX_TYPES, "a type of containers")
        for field in ("user", "role"):
            self._one_of(
                f"{path}.seLinuxOptions.{field}", options.get(field), _NO_VALUE, "left out"
            )
        windows = self._object(f"{path}.windowsOptions", context.get("windowsOptions"))
        host = windows.get("hostProcess")
        self._one_of(f"{path}.windowsOptions.hostProcess", host, _OFF, "false or left out")
        if not self._restricted:
            return
        non_root = context.get("runAsNonRoot")
        self._one_of(f"{path}.runAsNonRoot", non_root, (None, True), "true or left out")
        if context.get("runAsUser") == 0:
            self._problem(f"{path}.runAsUser", "must not be 0")

    def _hosts(self, path: str, container: Json) -> None:
        """Probes and hooks go to the pod itself: the kubelet sends them from the node's network."""
        actions = [(f"{path}.{probe}", container.get(probe)) for probe in _PROBES]
        lifecycle = self._object(f"{path}.lifecycle", container.get("lifecycle"))
        actions += [(f"{path}.lifecycle.{hook}", lifecycle.get(hook)) for hook in _HOOKS]
        for each, value in actions:
            action = self._object(each, value)
            for kind in ("httpGet", "tcpSocket"):
                target = self._object(f"{each}.{kind}", action.get(kind))
                self._one_of(f"{each}.{kind}.host", target.get("host"), _NO_VALUE, "left out")

    def _fields(self, path: str, value: Json, known: Collection[str]) -> None:
        for field in value:
            if field not in known and value[field] is not None:
                self._problem(f"{path}.{_short(field)}", "is not known to this operator")

    def _one_of(self, path: str, value: Any, allowed: Collection[Any], description: str) -> None:
        # By type too, because in Python 0 equals False.
        same = any(type(value) is type(one) and value == one for one in allowed)
        if not same:
            self._problem(path, f"must be {description}")

    def _object(self, path: str, value: Any) -> Json:
        """The value, or an empty object and a problem where it is none."""
        if value is None or isinstance(value, dict):
            return value or {}
        self._problem(path, "must be an object")
        return {}

    def _list(self, path: str, value: Any) -> list[Any]:
        """The value, or an empty list and a problem where it is none."""
        if value is None or isinstance(value, list):
            return value or []
        self._problem(path, "must be a list")
        return []

    def _entries(self, path: str, value: Any) -> Iterable[tuple[str, Json]]:
        """The objects of a list, each with its path: by name where it has one, else by number."""
        for number, entry in enumerate(self._list(path, value)):
            name = entry.get("name") if isinstance(entry, dict) else None
            each = f"{path}[{_short(name) if isinstance(name, str) and name else number}]"
            yield each, self._object(each, entry)

    def _problem(self, path: str, rule: str) -> None:
        self.problems.append(f"spec.template.{path} {rule}")


def _type_of(context: Json, profile: str) -> Any:
    """The type of a seccomp or AppArmor profile; a profile of another shape counts as its type."""
    value = context.get(profile)
    return value.get("type") if isinstance(value, dict) else value


def _short(name: str) -> str:
    """A name that a user chose, at a length that a message can hold."""
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..."
