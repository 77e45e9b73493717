"""Who may write below ``checkpoint.path``: one attempt of one job.

A job is known by its UID. The same name may come again with another UID, when a job is deleted and
made anew; then the one that was created later is the living one, because one name cannot belong to
two jobs at a time. So of two owners of one name it is always known which is the newer, from their
names alone: no clock is read, nothing is waited for and nothing has to be released.

Of two jobs with different names nobody can tell from files which of them still lives. A folder that
belongs to one is therefore refused to the other, until somebody gives it away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from inception_trainer.errors import ConfigError, Fenced

_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z|")
_UID = re.compile(r"[A-Za-z0-9-]{1,64}")
_JOB = re.compile(r"[a-z0-9-]{1,64}/[a-z0-9-]{1,64}|")
_MOST_DIGITS = 18


@dataclass(frozen=True, order=True)
class Owner:
    """One attempt of one job. A greater one is newer, and keeps out all that are older.

    Version 0.1 and runs outside a cluster know no UID: they are older than every job that has one.
    """

    created: str = ""
    """When the job was created, as ``20261130T033311Z``; with the same name, later is newer."""
    uid: str = ""
    attempt: int = 0
    job: str = field(default="", compare=False)
    """``<namespace>/<name>``"""

    @classmethod
    def of(cls, attempt: int | None, job: str = "", uid: str = "", created: str = "") -> Owner:
        """The owner that the environment describes, ``created`` as Kubernetes writes times.

        Raises ConfigError for values that are no names of files.
        """
        if not uid:
            return cls(attempt=attempt or 0, job=job)
        owner = cls(created.replace("-", "").replace(":", ""), uid, attempt or 0, job)
        if parse_owner(owner.encode()) != owner:
            raise ConfigError(
                f"INCEPTION_JOB={job!r}, INCEPTION_JOB_UID={uid!r}, "
                f"INCEPTION_JOB_CREATED={created!r}: not what the operator writes; unset them"
            )
        return owner

    def encode(self, digits: int = 1) -> str:
        """A name for a folder of this attempt, its number padded to so many ``digits``.

        Without a UID it is the number, as version 0.1 has it.
        """
        number = f"{self.attempt:0{digits}d}"
        if not self.uid:
            return number
        return f"{number}.{self.created}.{self.uid}.{self.job.replace('/', '.')}"

    def as_dict(self) -> dict[str, Any]:
        """For lease.json; what is not known is left out."""
        others = {"uid": self.uid, "created": self.created, "job": self.job}
        return {"attempt": self.attempt, **{key: text for key, text in others.items() if text}}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Owner | None:
        """The owner that a lease names; None where it names none."""
        attempt = content.get("attempt")
        if not isinstance(attempt, int) or isinstance(attempt, bool):
            return None
        created, uid, job = (str(content.get(key, "")) for key in ("created", "uid", "job"))
        return cls(created, uid, attempt, job)

    def is_of_another_job(self, other: Owner) -> bool:
        """Whether both are known by name, and not by the same."""
        return bool(self.job and other.job) and self.job != other.job

    def among(self, others: Iterable[Owner]) -> Owner:
        """This owner where ``others`` have been before.

        A run that knows no UID goes on in the name of the newest of them: only so is it newer.
        Without a number it is the successor.
        """
        newest = max(others, default=Owner())
        owner = self
        if not self.uid:
            owner = replace(newest, attempt=self.attempt, job=self.job or newest.job)
        if owner.attempt:
            return owner
        return replace(owner, attempt=newest.attempt + 1 if owner.uid == newest.uid else 1)

    def __str__(self) -> str:
        job = f" of job {self.job}" if self.job else ""
        return f"attempt {self.attempt}{job}" + (f" (UID {self.uid})" if self.uid else "")


def parse_owner(name: str) -> Owner | None:
    """The owner whose folder has this name; None for other names."""
    number, *rest = name.split(".")
    if not number.isascii() or not number.isdigit() or len(number) > _MOST_DIGITS:
        return None
    attempt = int(number)
    if not rest:
        return Owner(attempt=attempt)
    created, uid, job = rest[0], ".".join(rest[1:2]), "/".join(rest[2:])
    if _TIME.fullmatch(created) and _UID.fullmatch(uid) and _JOB.fullmatch(job):
        return Owner(created, uid, attempt, job)
    return None


def check_newest(owner: Owner, others: Iterable[Owner], root: object) -> None:
    """Raise Fenced when a newer attempt of the same job is among ``others``."""
    newest = max((other for other in others if not owner.is_of_another_job(other)), default=owner)
    if newest > owner:
        raise fenced_by(newest, owner, root)


def fenced_by(newest: Owner | None, owner: Owner, root: object) -> Fenced:
    """The error of an attempt that is not the newest any more."""
    if newest is None:
        return Fenced(f"another run has taken {root}; {owner} must not write there any more")
    if newest.uid == owner.uid:
        # The usual case, in which the job is clear from where one reads this.
        return Fenced(
            f"attempt {newest.attempt} owns {root}; "
            f"attempt {owner.attempt} must not write there any more"
        )
    return Fenced(f"{newest} owns {root}; {owner} must not write there any more")


def refused(owner: Owner, other: Owner, root: object, remedy: str) -> ConfigError:
    """The error of a job whose place for checkpoints belongs to another one."""
    return ConfigError(
        f"checkpoint.path: {root} belongs to job {other.job} ({other}), and two jobs never share "
        f"a folder; give job {owner.job} another place in spec.checkpoint, or, if job {other.job} "
        f"is gone, {remedy}"
    )
