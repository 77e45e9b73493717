"""Trainings from Python: start one, watch it, read its logs and figures, take its result.

    job = Training(recipe="bninception-digits").submit()
    for progress in job.watch():
        print(progress)
    job.result()

`Job` waits for the API server, `AsyncJob` has the same verbs for an event loop. It imports nothing
of the commands, and needs the packages ``kubernetes`` and ``pyyaml`` alone; `Job.history` needs
pandas. docs/sdk.md is the page for users.
"""

from inception_operator.client.errors import AnswerError, ClientError, TimedOutError

from .async_job import AsyncJob
from .failure import RootCause, TrainingFailed
from .fields import Spec, Status
from .job import Job
from .metrics import Metric
from .training import Training
from .views import LogLine, Progress, Result

__all__ = [
    "AnswerError",
    "AsyncJob",
    "ClientError",
    "Job",
    "LogLine",
    "Metric",
    "Progress",
    "Result",
    "RootCause",
    "Spec",
    "Status",
    "TimedOutError",
    "Training",
    "TrainingFailed",
]
