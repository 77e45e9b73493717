"""The end of a job's time is no loss: its ranks save together before they go."""

from __future__ import annotations

import json

import pytest

from node_jobs import Jobs, condition_message

LABEL = "training.inception.dev/job"
pytestmark = pytest.mark.timeout(1500)


@pytest.mark.nightly
def test_active_deadline_saves_before_it_ends_the_job(jobs: Jobs) -> None:
    # No checkpoint is due within the job's time: the only one is that of its end.
    training = {
        "recipe": "bninception-digits",
        "epochs": 1000,
        "logEverySteps": 5,
        "evaluation": {"everyEpochs": 1000},
    }
    jobs.apply(
        "late", training=training, checkpoint={"volumeClaimName": "late", "everySeconds": 3600}
    )
    jobs.wait_step("late", attempt=1)
    reached = jobs.page("late")["trainer_step"]
    patch = json.dumps({"spec": {"runPolicy": {"activeDeadlineSeconds": 1}}})
    jobs.kubectl("patch", "itrain", "late", "--type=merge", "-p", patch)
    status = jobs.wait_failed("late")

    message = condition_message(status, "Failed")
    assert message.startswith("DeadlineExceeded: "), message
    jobs.kubectl(
        "wait",
        "--for=jsonpath={.status.phase}=Failed",
        "pod",
        "-l",
        f"{LABEL}=late",
        "--timeout=120s",
    )
    codes = [
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
        for pod in jobs.pods("late")
    ]
    assert codes == [75, 75], jobs.story("late", status)
    assert jobs.file("late", "latest.json")["step"] >= reached, (
        "all ranks have saved what they had done"
    )
