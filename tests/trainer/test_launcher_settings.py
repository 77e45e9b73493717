"""The launcher's settings from the environment."""

import pytest

from inception_trainer.launcher import settings


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), ("", None), ("60", 60.0), ("0.5", 0.5)]
)
def test_deadline_for_progress(text: str | None, seconds: float | None) -> None:
    environment = {} if text is None else {"INCEPTION_PROGRESS_DEADLINE_SECONDS": text}
    assert settings.read([], environment).progress_deadline == seconds


def test_malformed_seconds_are_named() -> None:
    with pytest.raises(
        settings.SettingsError, match=r"INCEPTION_PROGRESS_DEADLINE_SECONDS: .*'soon'"
    ):
        settings.read([], {"INCEPTION_PROGRESS_DEADLINE_SECONDS": "soon"})


def test_the_token_is_the_uid_of_the_pod() -> None:
    assert settings.read([], {"INCEPTION_POD_UID": "uid-1"}).token == "uid-1"


@pytest.mark.parametrize(
    ("text", "address"), [("10.0.0.7:8080", "10.0.0.7:8080"), ("", ""), ("no address", "")]
)
def test_who_made_the_pod_is_notified_where_it_can_be(text: str, address: str) -> None:
    assert settings.read([], {"INCEPTION_NOTIFY_ADDRESS": text}).notify_address == address
    assert settings.read([], {}).token == "", "an older operator made the pod"
