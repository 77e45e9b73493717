"""Bad input gets a clear condition within seconds, and no retry is burnt on what cannot work."""

from __future__ import annotations

from typing import Any

import pytest

from node_jobs import Jobs, condition, condition_message

pytestmark = pytest.mark.timeout(1500)


@pytest.mark.parametrize(
    ("training", "exit_code", "reason", "words"),
    [
        pytest.param(
            {
                "data": {"kind": "ImageFolder", "path": "/data/imagenet-that-is-not-there"},
                "epochs": 1,
            },
            66,
            "InputMissing",
            ["/data/imagenet-that-is-not-there"],
            id="wrong dataset path",
        ),
        pytest.param(
            {"recipe": "bninception-digit"},
            78,
            "ConfigError",
            ["bninception-digit", "bninception-digits"],
            id="unknown recipe",
        ),
    ],
)
def test_hopeless_job_fails_at_once(
    jobs: Jobs, training: dict[str, Any], exit_code: int, reason: str, words: list[str]
) -> None:
    jobs.apply("hopeless", claim=False, training=training)
    status = jobs.wait_failed("hopeless")
    cause = status["rootCause"]
    assert (cause["exitCode"], cause["reason"]) == (exit_code, reason)
    assert (status["attempt"], status["restarts"]) == (1, 0)
    for word in words:
        assert word in cause["message"]
        assert word in condition_message(status, "Failed")
    assert words[0] in jobs.kubectl("describe", "itrain", "hopeless")


def test_missing_image_is_reported(jobs: Jobs) -> None:
    jobs.apply("no-image", claim=False, image="localhost/no-such-trainer:1")
    status = jobs.wait(
        "no-image", "reported", lambda s: "ImagePullFailed" in condition_message(s, "PodsReady"), 60
    )
    assert "localhost/no-such-trainer:1" in condition_message(status, "PodsReady")


def test_missing_resource_is_reported(jobs: Jobs) -> None:
    jobs.apply(
        "no-device",
        claim=False,
        accelerator={"profile": "nvidia", "resourceName": "nvidia.com/mig-1g.5gb"},
    )
    status = jobs.wait(
        "no-device", "reported", lambda s: "Unschedulable" in condition_message(s, "PodsReady"), 60
    )
    assert "nvidia.com/mig-1g.5gb" in condition_message(status, "PodsReady")
    assert condition(status, "Failed") != "True"


def test_unknown_profile_is_reported(jobs: Jobs) -> None:
    jobs.apply("no-profile", claim=False, accelerator={"profile": "abacus"})
    status = jobs.wait("no-profile", "rejected", lambda s: condition(s, "Accepted") == "False", 60)
    message = condition_message(status, "Accepted")
    assert "spec.accelerator.profile" in message
    assert "cambricon" in message
    assert (status["state"], condition(status, "Failed")) == ("Rejected", "False")
    assert jobs.pods("no-profile") == []
