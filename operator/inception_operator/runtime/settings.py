"""Settings of the operator process: parsed once (`__main__`) and validated at construction."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from inception_operator.contract.errors import SettingsError
from inception_operator.contract.names import PodPolicy
from inception_operator.contract.shard import ALL_JOBS, Shard
from inception_operator.decide.leave_signs import DEFAULT, LeaveSigns, parse_signs
from inception_operator.pod.build import USER

LogFormat = Literal["json", "text"]
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
LOG_LEVELS = ("debug", "info", "warning", "error")
POD_POLICIES = (PodPolicy.OFF, PodPolicy.BASELINE, PodPolicy.RESTRICTED)
MAX_USER = 2**31 - 1
_IMAGE = re.compile(r"\S+")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _identity() -> str:
    """Unique per process, so that a restarted operator never takes an old Lease for its own."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Settings:
    """How one operator process runs; the command line has the first fields, the rest is fixed.

    Durations are seconds. No ``namespaces`` means all. ``max_watch_age`` and ``max_key_age`` are
    what /healthz allows: the age of the quietest watch, and of the oldest key in the work queue.
    ``shard`` is the part of the jobs that is this process's.
    """

    trainer_image: str
    trainer_pull_policy: str | None = None
    http_host: str = "::"
    http_port: int = 8080
    metrics_secure: bool = False
    metrics_port: int = 8443
    metrics_cert_path: Path | None = None
    advertise_address: str | None = None
    leader_election: bool = True
    lease_namespace: str = "default"
    lease_name: str = "inception-operator"
    lease_duration: float = 15.0
    lease_renew_deadline: float = 10.0
    lease_retry_period: float = 2.0
    shard: Shard = ALL_JOBS
    profiles_dir: Path | None = None
    kubeconfig: Path | None = None
    log_format: LogFormat = "json"
    log_level: str = "info"
    workers: int = 16
    scrape_seconds: float = 5.0
    progress_seconds: float = 10.0
    resync_seconds: float = 60.0
    max_watch_age: float = 180.0
    max_key_age: float = 120.0
    namespaces: tuple[str, ...] = ()
    pod_policy: str = PodPolicy.OFF
    pod_user: int | None = USER
    """User and group of the processes of jobs and of their volumes; None: as the cluster says."""
    leave_on: tuple[str, ...] = (DEFAULT,)
    identity: str = field(default_factory=_identity)

    def __post_init__(self) -> None:
        self._check(
            bool(_IMAGE.fullmatch(self.trainer_image)), "--trainer-image", "an image reference"
        )
        self._check(0 <= self.http_port < 65536, "--http-port", "a port from 0 to 65535")
        self._check_metrics()
        self._check(_is_address(self.advertise_address), "--advertise-address", "an IP address")
        # Port 0 lets the kernel choose one, which launchers could not be told in time.
        can_be_notified = self.advertise_address is None or self.http_port > 0
        self._check(
            can_be_notified, "--advertise-address", "--http-port with a fixed port beside it"
        )
        self._check(self.workers >= 1, "--workers", "at least 1")
        self._check(self.log_level in LOG_LEVELS, "--log-level", f"one of {', '.join(LOG_LEVELS)}")
        self._check(self.log_format in ("json", "text"), "--log-format", "json or text")
        policies = f"one of {', '.join(POD_POLICIES)}"
        self._check(self.pod_policy in POD_POLICIES, "--pod-policy", policies)
        self._check(
            self.pod_user is None or 0 < self.pod_user <= MAX_USER,
            "--pod-user",
            f"a number from 1 to {MAX_USER}, or none",
        )
        self._check(
            bool(self.lease_namespace and self.lease_name),
            "--lease-namespace and --lease-name",
            "a name",
        )
        # Two numbers of shards, in force at the same time, would both run the same job.
        self._check(
            self.shard.alone or self.leader_election, "--shard", "no --no-leader-election beside it"
        )
        for name in self.namespaces:
            self._check(
                bool(_NAMESPACE.fullmatch(name)),
                "--namespaces",
                f"names of namespaces, not {name!r}",
            )
        try:
            parse_signs(self.leave_on)
        except ValueError as error:
            raise SettingsError(f"--leave-on: {error}") from error
        # A leader must have given up before others may take its Lease.
        ordered = 0 < self.lease_retry_period < self.lease_renew_deadline < self.lease_duration
        self._check(ordered, "lease times", "retry period < renew deadline < duration")

    def _check_metrics(self) -> None:
        self._check(0 <= self.metrics_port < 65536, "--metrics-port", "a port from 0 to 65535")
        if not self.metrics_secure:
            # It would look as if the page had a guard.
            self._check(
                self.metrics_cert_path is None, "--metrics-cert-path", "--metrics-secure beside it"
            )
            return
        self._check(
            self.metrics_cert_path is not None,
            "--metrics-secure",
            "--metrics-cert-path with the folder of tls.crt and tls.key beside it",
        )
        self._check(
            self.metrics_port == 0 or self.metrics_port != self.http_port,
            "--metrics-port",
            "another port than --http-port",
        )

    @property
    def leave_signs(self) -> LeaveSigns:
        """By which signs of a node jobs leave it."""
        return parse_signs(self.leave_on)

    @property
    def notify_address(self) -> str:
        """Host and port at which launchers notify the operator; empty when they cannot."""
        host = self.advertise_address
        if host is None:
            return ""
        # IPv6 addresses are written in brackets where a port follows.
        return f"[{host}]:{self.http_port}" if ":" in host else f"{host}:{self.http_port}"

    @staticmethod
    def _check(valid: bool, name: str, expected: str) -> None:
        if not valid:
            raise SettingsError(f"{name}: expected {expected}")


def _is_address(text: str | None) -> bool:
    try:
        return text is None or bool(ipaddress.ip_address(text))
    except ValueError:
        return False
