"""One code, one meaning: in the trainer's errors, in the launcher's table and in the operator's."""

import pytest

from inception_operator.contract import version
from inception_operator.contract.names import Cause
from inception_operator.decide import failure
from inception_trainer import errors
from inception_trainer.launcher import contract
from inception_trainer.launcher.exitcodes import REASONS, ExitCode, Reason, reason_of

NAMED = [
    error
    for error in vars(errors).values()
    if isinstance(error, type)
    and issubclass(error, errors.TrainerError)
    and "exit_code" in vars(error)
    and error.exit_code != ExitCode.ERROR
]
"""The trainer's errors that brought a code of their own, not one of the class above."""


@pytest.mark.parametrize("error", NAMED, ids=lambda error: error.__name__)
def test_the_launcher_calls_a_code_of_the_trainer_as_its_error_is_called(
    error: type[errors.TrainerError],
) -> None:
    # Weights become infinite, too, so the reason is the wider word.
    assert reason_of(error.exit_code) == error.__name__.removesuffix("Loss")


def test_every_reason_of_the_trainer_belongs_to_one_of_its_errors() -> None:
    of_trainer = {REASONS[error.exit_code] for error in NAMED}
    assert set(REASONS.values()) - of_trainer == {Reason.HANG, Reason.CANNOT_RUN}, (
        "these two the launcher finds out itself"
    )


def test_the_operator_reads_the_codes_that_the_launcher_writes() -> None:
    assert {int(code): reason for code, reason in REASONS.items()} == failure._CAUSE_OF_CODE
    assert failure.STOPPED_CODE == ExitCode.STOPPED


def test_operator_and_launcher_of_one_release_speak_the_same_version() -> None:
    assert (version.CONTRACT, version.SPOKEN, version.UNSAID) == (
        contract.CONTRACT,
        contract.SPOKEN,
        contract.UNSAID,
    )
    assert Reason.CONTRACT_MISMATCH == Cause.CONTRACT_MISMATCH
