"""The section ``tracking``: experiment trackers that a training reports its curves to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .declare import Api, key, rule

_URI = re.compile(r"(?P<path>/.+|file:///.+)|https?://[^/@]+(/.*)?")
_NAME = Api(min_length=1, max_length=128)


@dataclass(frozen=True)
class MLflowConfig:
    """Mlflow reports to MLflow, for which the image needs the Python package mlflow or
    mlflow-skinny.
    """

    uri: str | None = key(
        None, api=Api(pattern=r"^(/.+|file:///.+|https?://[^/@]+(/.*)?)$", max_length=1024)
    )
    """Uri is the http or https URL of a tracking server, or the absolute directory, inside the
    container, of a file store. Credentials of a server come from the environment, in a job from a
    Secret. Without it nothing is reported to MLflow.
    """

    experiment: str = key("inception", api=_NAME)
    """Experiment is the name of the experiment that runs belong to, which is made if it is not
    there. The default is inception.
    """


@dataclass(frozen=True)
class WandbConfig:
    """Wandb keeps a run of Weights & Biases below the output directory, offline, from where wandb
    sync uploads it. The image needs the Python package wandb.
    """

    project: str | None = key(None, api=_NAME)
    """Project is the name of the project that runs belong to. Without it nothing is kept."""


@dataclass(frozen=True)
class TrackingConfig:
    """Tracking is which experiment trackers mode Train reports its curves to, besides the files in
    the output directory. All attempts of a job are one run. A tracker that is missing or does not
    answer never holds up the training: the log says so once.
    """

    mlflow: MLflowConfig = field(default_factory=MLflowConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    # The API server has the pattern.
    @rule()
    def mlflow_is_a_server_or_a_folder(self) -> str | None:
        """Databases would need further packages, and credentials would stand in every log."""
        uri = self.mlflow.uri
        if uri is None or "://" not in uri or _URI.fullmatch(uri):
            return None
        if "@" in uri:
            return (
                "tracking.mlflow.uri: holds credentials; leave them out and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment (in the "
                "cluster: from a Secret)"
            )
        return (
            f"tracking.mlflow.uri: {uri!r} is neither an http or https URL nor a directory; give "
            "the address of a tracking server"
        )
