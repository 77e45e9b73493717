"""What ``helm test`` runs in a pod: one tiny job from its creation to its end.

It makes an InceptionTraining, waits until the operator has brought it to an end, and deletes it
whatever came of it. Exit status 0 means that the job succeeded. Standard library only, because it
runs in the operator's image of whatever version.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")
OVER = ("Succeeded", "Failed", "Rejected")
PAUSE_SECONDS = 1.0
Json = dict[str, Any]


class RefusedError(Exception):
    """The API server refused a request."""


class Jobs:
    """The jobs of one namespace, with the pod's own service account."""

    def __init__(self, namespace: str, credentials: Path) -> None:
        self._path = f"/apis/training.inception.dev/v1alpha1/namespaces/{namespace}"
        self._path += "/inceptiontrainings"
        self._credentials = credentials
        self._tls = ssl.create_default_context(cafile=str(credentials / "ca.crt"))

    def create(self, job: Json) -> None:
        """Make it; raises RefusedError with the API server's own words."""
        self._request("POST", self._path, job)

    def get(self, name: str) -> Json | None:
        """The job, or None when there is none."""
        return self._request("GET", f"{self._path}/{name}")

    def delete(self, name: str) -> None:
        """Delete it; it is gone when its pods are."""
        self._request("DELETE", f"{self._path}/{name}", {"propagationPolicy": "Foreground"})

    def _request(self, method: str, path: str, body: Json | None = None) -> Json | None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        token = (self._credentials / "token").read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        server = http.client.HTTPSConnection(host, int(port), context=self._tls, timeout=30)
        try:
            server.request(method, path, json.dumps(body) if body else None, headers)
            answer = server.getresponse()
            content = json.loads(answer.read())
        finally:
            server.close()
        if answer.status == http.HTTPStatus.NOT_FOUND and method != "POST":
            return None
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            message = content.get("message", answer.reason)
            raise RefusedError(f"{method} of the job: {answer.status} {message}")
        return dict(content)


def run(jobs: Jobs, job: Json, seconds: float) -> bool:
    """Whether the job succeeds; says on the way what it is doing. It is gone afterwards."""
    name = job["metadata"]["name"]
    end = time.monotonic() + seconds
    try:
        # What an earlier test left, which was killed, has the same name.
        remove(jobs, name, end)
        jobs.create(job)
        last = wait_until_over(jobs, name, end)
    finally:
        jobs.delete(name)
    if last.get("status", {}).get("state") == "Succeeded":
        return True
    report(last)
    return False


def remove(jobs: Jobs, name: str, end: float) -> None:
    """Delete a job and wait until it is gone."""
    while jobs.get(name) is not None and time.monotonic() < end:
        jobs.delete(name)
        time.sleep(PAUSE_SECONDS)


def wait_until_over(jobs: Jobs, name: str, end: float) -> Json:
    """The job as it was last seen: over, or at the end of the time."""
    seen, job = None, {}
    while time.monotonic() < end:
        job = jobs.get(name) or {}
        state = job.get("status", {}).get("state")
        if state != seen:
            print(f"job {name}: {state}", flush=True)
            seen = state
        if state in OVER:
            return job
        time.sleep(PAUSE_SECONDS)
    print("the time of the test is over: test.timeoutSeconds", flush=True)
    return job


def report(job: Json) -> None:
    """Print what the operator says about a job that did not succeed."""
    status = job.get("status", {})
    if not status:
        print("no operator has looked at the job: is it ready, and does it watch this namespace?")
    for condition in status.get("conditions", ()):
        print("{type}={status} {reason}: {message}".format(**{"message": "", **condition}))
    if "rootCause" in status:
        print("root cause:", json.dumps(status["rootCause"]))


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """End on SIGTERM through ``finally``, so that the job does not stay."""
    sys.exit(f"stopped by signal {number}")


def main(arguments: list[str]) -> int:
    """``NAMESPACE JOB_FILE SECONDS``, and where credentials lie elsewhere, their folder."""
    namespace, file, seconds, *credentials = arguments
    signal.signal(signal.SIGTERM, stop)
    jobs = Jobs(namespace, Path(*credentials) if credentials else CREDENTIALS)
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    try:
        succeeded = run(jobs, job, float(seconds))
    except (RefusedError, OSError) as error:
        print(f"the test failed: {error}", flush=True)
        return 1
    print("the operator works" if succeeded else "the job did not succeed", flush=True)
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
