"""The chart's policy against creations that arrive after the take-over, on the real API server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from inception_operator.contract import names
from localcluster import components
from localcluster.cluster import Cluster
from localcluster.errors import CommandError
from localcluster.progress import to_stderr
from trainings import wait_for

pytestmark = pytest.mark.timeout(240)

CHART = Path(__file__).resolve().parents[2] / "charts" / "inception-operator"
GUARDS = ("Lease", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


class Release:
    """The Lease of a release with its policy, and what the operator's account may create."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        helm = str(components.build(["helm"], to_stderr)["helm"])
        chosen = f"leaderElection.guardCreations=true,fullnameOverride=guarded-{namespace}"
        command = [helm, "template", "release", str(CHART), f"--namespace={namespace}"]
        command.append("--skip-tests")
        done = subprocess.run([*command, "--set", chosen], capture_output=True, check=True)
        objects = [each for each in yaml.safe_load_all(done.stdout) if each]
        self._guards = [each for each in objects if each["kind"] in GUARDS]
        (account,) = (each for each in objects if each["kind"] == "ServiceAccount")
        self._account = f"system:serviceaccount:{namespace}:{account['metadata']['name']}"

    def __enter__(self) -> Release:
        self._cluster.apply(*self._guards)
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._guards[1:]:
            self._cluster.kubectl("delete", each["kind"], each["metadata"]["name"])

    def hand_over(self, holder: str) -> None:
        """Make somebody the holder of the Lease."""
        patch = json.dumps({"spec": {"holderIdentity": holder}})
        name = self._guards[0]["metadata"]["name"]
        self._kubectl("patch", "lease", name, "--type=merge", f"--patch={patch}")

    def refusal(self, creator: str | None, *, operator: bool = True) -> str:
        """Why a pod that says ``creator`` made it is refused; empty where it is taken."""
        annotations = {} if creator is None else {names.ANNOTATION_CREATED_BY: creator}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": "late-", "annotations": annotations},
            "spec": {"containers": [{"name": "trainer", "image": "image:1"}]},
        }
        # The account with the rights of an administrator: the policy alone stands in its way.
        account = ["--as", self._account, "--as-group", "system:masters"] if operator else []
        try:
            self._kubectl("create", "--dry-run=server", "-f", "-", *account, text=json.dumps(body))
        except CommandError as error:
            return str(error)
        return ""

    def _kubectl(self, *arguments: str, text: str = "") -> None:
        self._cluster.kubectl("--namespace", self._namespace, *arguments, input=text)


def test_only_the_holder_of_the_lease_creates_pods(control_plane: Cluster, namespace: str) -> None:
    with Release(control_plane, namespace) as release:
        release.hand_over("first")
        wait_for("the policy", lambda: release.refusal("second"))
        assert release.refusal("first") == ""
        release.hand_over("second")
        wait_for("the new holder", lambda: release.refusal("second") == "")
        late = release.refusal("first")
        assert names.NOT_THE_HOLDER in late
        assert "'first'" in late
        assert "'second'" in late
        assert names.NOT_THE_HOLDER in release.refusal(None)
        assert release.refusal(None, operator=False) == "", (
            "pods of others are none of its business"
        )
        # As when an operator has given the Lease back.
        release.hand_over("")
        wait_for("nobody to hold it", lambda: release.refusal("second"))
        assert names.NOT_THE_HOLDER in release.refusal(None)
