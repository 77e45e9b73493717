"""Templates that keep to a level of the Pod Security Standards, and templates that do not.

tests/unit asks the operator's policy, tests/integration the API server's own admission; both must
say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
OFF, BASELINE, RESTRICTED = "off", "baseline", "restricted"


@dataclass(frozen=True)
class Case:
    """What a template adds to the pod of a job, and the highest level that allows it."""

    name: str
    template: Json
    highest: str
    field: str = ""
    """What the policy names as wrong at the next level."""
    stricter: bool = False
    """At the level baseline the operator refuses what the API server allows; `policy` says why."""


def _pod(**spec: Any) -> Json:
    return {"spec": spec}


def _trainer(**fields: Any) -> Json:
    return _pod(containers=[{"name": "trainer", **fields}])


def _context(**fields: Any) -> Json:
    return _trainer(securityContext=fields)


def _side(kind: str = "containers", **fields: Any) -> Json:
    return _pod(**{kind: [{"name": "side", "image": "i:1", **fields}]})


def _volume(**source: Any) -> Json:
    return _pod(volumes=[{"name": "v", **source}])


_LOCKED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_OF_TRAINER = "spec.containers[trainer].securityContext"
_OF_SIDE = "spec.containers[side].securityContext"

CASES = (
    Case("nothing", {}, RESTRICTED),
    Case("labels", {"metadata": {"labels": {"a": "b"}}}, RESTRICTED),
    Case("null privileged", _context(privileged=None), RESTRICTED),
    Case("another user", _pod(securityContext={"runAsUser": 12345}), RESTRICTED),
    Case("root", _context(runAsUser=0), BASELINE, f"{_OF_TRAINER}.runAsUser"),
    Case(
        "root of the pod",
        _pod(securityContext={"runAsUser": 0}),
        BASELINE,
        "spec.securityContext.runAsUser",
    ),
    Case("may be root", _context(runAsNonRoot=False), BASELINE, f"{_OF_TRAINER}.runAsNonRoot"),
    Case(
        "pod may be root",
        _pod(securityContext={"runAsNonRoot": False}),
        BASELINE,
        "spec.securityContext.runAsNonRoot",
    ),
    Case(
        "escalation",
        _context(allowPrivilegeEscalation=True),
        BASELINE,
        f"{_OF_TRAINER}.allowPrivilegeEscalation",
    ),
    Case(
        "privileged",
        _context(privileged=True, allowPrivilegeEscalation=True),
        OFF,
        f"{_OF_TRAINER}.privileged",
    ),
    Case(
        "default capability",
        _context(capabilities={"add": ["CHOWN"]}),
        BASELINE,
        f"{_OF_TRAINER}.capabilities.add",
    ),
    Case("low port", _context(capabilities={"add": ["NET_BIND_SERVICE"]}), RESTRICTED),
    Case(
        "capability",
        _context(capabilities={"add": ["SYS_ADMIN"]}),
        OFF,
        f"{_OF_TRAINER}.capabilities.add",
    ),
    Case(
        "drops too little",
        _context(capabilities={"drop": ["KILL"]}),
        BASELINE,
        f"{_OF_TRAINER}.capabilities.drop",
    ),
    Case("proc", _context(procMount="Default"), RESTRICTED),
    Case(
        "unconfined",
        _context(seccompProfile={"type": "Unconfined"}),
        OFF,
        f"{_OF_TRAINER}.seccompProfile.type",
    ),
    Case(
        "unconfined pod",
        _pod(securityContext={"seccompProfile": {"type": "Unconfined"}}),
        OFF,
        "spec.securityContext.seccompProfile.type",
    ),
    Case(
        "own seccomp profile",
        _context(seccompProfile={"type": "Localhost", "localhostProfile": "p.json"}),
        RESTRICTED,
    ),
    Case(
        "apparmor off",
        _context(appArmorProfile={"type": "Unconfined"}),
        OFF,
        f"{_OF_TRAINER}.appArmorProfile.type",
    ),
    Case("selinux type", _context(seLinuxOptions={"type": "container_t"}), RESTRICTED),
    Case(
        "selinux type of the host",
        _context(seLinuxOptions={"type": "spc_t"}),
        OFF,
        f"{_OF_TRAINER}.seLinuxOptions.type",
    ),
    Case(
        "selinux user",
        _pod(securityContext={"seLinuxOptions": {"user": "system_u"}}),
        OFF,
        "spec.securityContext.seLinuxOptions.user",
    ),
    Case("host network", _pod(hostNetwork=True), OFF, "spec.hostNetwork"),
    Case("host pid", _pod(hostPID=True), OFF, "spec.hostPID"),
    Case("host ipc", _pod(hostIPC=True), OFF, "spec.hostIPC"),
    Case(
        "host port",
        _trainer(ports=[{"name": "mine", "containerPort": 9000, "hostPort": 9000}]),
        OFF,
        "spec.containers[trainer].ports[mine].hostPort",
    ),
    Case("host path", _volume(hostPath={"path": "/"}), OFF, "spec.volumes[v].hostPath"),
    Case(
        "nfs",
        _volume(nfs={"server": "s", "path": "/"}),
        BASELINE,
        "spec.volumes[v].nfs",
    ),
    Case("secret", _volume(secret={"secretName": "s"}), RESTRICTED),
    Case("config map", _volume(configMap={"name": "c"}), RESTRICTED),
    Case(
        "git",
        _volume(gitRepo={"repository": "https://host/r"}),
        OFF,
        "spec.volumes[v].gitRepo",
        stricter=True,
    ),
    Case(
        "safe sysctl",
        _pod(securityContext={"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1 2 3"}]}),
        RESTRICTED,
    ),
    Case(
        "sysctl",
        _pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
        OFF,
        "spec.securityContext.sysctls[kernel.msgmax].name",
    ),
    Case(
        "host of a probe",
        _trainer(livenessProbe={"httpGet": {"host": "10.0.0.1", "port": 80}}),
        OFF,
        "spec.containers[trainer].livenessProbe.httpGet.host",
    ),
    Case(
        "host of a hook",
        _trainer(lifecycle={"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 80}}}),
        OFF,
        "spec.containers[trainer].lifecycle.preStop.tcpSocket.host",
    ),
    Case("side container", _side(), BASELINE, f"{_OF_SIDE}.allowPrivilegeEscalation"),
    Case("locked side container", _side(securityContext=_LOCKED), RESTRICTED),
    Case(
        "side container with more",
        _side(securityContext={"privileged": True}),
        OFF,
        f"{_OF_SIDE}.privileged",
    ),
    Case(
        "init container",
        _side("initContainers", securityContext={"capabilities": {"add": ["NET_ADMIN"]}}),
        OFF,
        "spec.initContainers[side].securityContext.capabilities.add",
    ),
    Case(
        "side container of its own seccomp",
        _side(securityContext={**_LOCKED, "seccompProfile": {"type": "RuntimeDefault"}}),
        RESTRICTED,
    ),
)
LEVELS = (OFF, BASELINE, RESTRICTED)


def allowed(case: Case, level: str) -> bool:
    """Whether a pod with this template keeps to the level."""
    return LEVELS.index(level) <= LEVELS.index(case.highest)
