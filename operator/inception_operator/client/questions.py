"""What is asked of the API server about jobs and their pods, whoever sends it. No I/O.

A question is a generator: it yields requests, is sent their answers, and returns what was wanted.
The commands and the SDK answer it with a client that blocks (`cluster.Cluster`), the asynchronous
half of the SDK with another one, so that no rule and no message exists twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote

from inception_operator.contract import names
from inception_operator.contract.names import State
from inception_operator.contract.types import Json

from . import figures
from .errors import (
    FAILED,
    FORBIDDEN,
    NOT_FOUND,
    UNAVAILABLE,
    AnswerError,
    ClientError,
    did_you_mean,
)
from .figures import part
from .outcome import is_over
from .text import clean_line, command

MERGE: Final = "application/merge-patch+json"
JSON: Final = "application/json"
_GROUP_PATH: Final = f"/apis/{names.API_VERSION}"
_PAGE: Final = 500
_BUSY: Final = 429
_GONE: Final = 410
_NO_RIGHT: Final = '" cannot '
"""As in: User "jane" cannot patch resource "pods" …"""
_TRIES: Final = 10
_LONGEST_PAUSE: Final = 30.0
Query = Sequence[tuple[str, str]]
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One request to the API server."""

    method: str
    path: str
    body: Any = None
    query: Query = ()
    content: str = JSON


Question = Generator[Request, Json, T]


def answered(question: Question[T], send: Callable[[Request], Json]) -> T:
    """What a question comes to; ``send`` carries its requests out."""
    try:
        request = next(question)
        while True:
            try:
                answer = send(request)
            except ClientError as error:
                request = question.throw(error)
            else:
                request = question.send(answer)
    except StopIteration as end:
        found: T = end.value
        return found


class Questions:
    """The questions about one namespace; ``manager`` owns the fields that are written, and
    ``options`` lead the commands that remedies name to the same place.
    """

    def __init__(self, namespace: str, manager: str, options: str = "") -> None:
        self.namespace = namespace
        self._options = options
        self._manager = ("fieldManager", manager)

    def jobs_path(self, name: str = "", sub: str = "", *, everywhere: bool = False) -> str:
        """URL path of the jobs of the namespace or of all, of one job, or of a part of it."""
        return _path(_GROUP_PATH, "" if everywhere else self.namespace, names.PLURAL, name, sub)

    def core_path(self, plural: str, name: str = "", sub: str = "") -> str:
        """The same of a kind of the core group."""
        return _path("/api/v1", self.namespace, plural, name, sub)

    def everything(self, path: str, query: Query = ()) -> Question[list[Json]]:
        """All items of a list, page by page."""
        found: list[Json] = []
        token = ""
        while True:
            page = [*query, ("limit", str(_PAGE)), *([("continue", token)] if token else [])]
            try:
                answer = yield Request("GET", path, query=page)
            except AnswerError as error:
                if error.status != _GONE or not token:
                    raise
                # All pages are of one moment, and etcd forgets that after some minutes: what has
                # been read by then is worth nothing. As kubectl does, the whole list is asked for.
                answer = yield Request("GET", path, query=query)
                return answer.get("items") or []
            found += answer.get("items") or []
            token = str((answer.get("metadata") or {}).get("continue") or "")
            if not token:
                return found

    def jobs(self, *, everywhere: bool = False, selector: str = "") -> Question[list[Json]]:
        """The jobs of the namespace, or of all."""
        query = [("labelSelector", selector)] if selector else []
        return (yield from self.everything(self.jobs_path(everywhere=everywhere), query))

    def job(self, name: str) -> Question[Json]:
        """One job; when there is none of this name, the error names the nearest."""
        try:
            return (yield Request("GET", self.jobs_path(name)))
        except AnswerError as error:
            yield from self._explained(name, error)
            raise

    def living(self, name: str) -> Question[Json]:
        """The job, unless it is over: then nothing can be changed about it any more."""
        job = yield from self.job(name)
        if is_over(job):
            raise ClientError(
                f"{name} is over ({figures.state(job)}), and a job that is over never comes back",
                "Create it anew, it resumes from its checkpoint: "
                f"`{self._command(f'get {name} -o yaml')}`, `{self._command(f'delete {name}')}`, "
                f"`kubectl apply -f …{self._options}`.",
            )
        return job

    def create(self, resource: Json, *, dry: bool = False) -> Question[Json]:
        """Make a job. A key that the API server does not know is an error, not left out."""
        name = resource["metadata"]["name"]
        query = [self._manager, ("fieldValidation", "Strict")]
        query += [("dryRun", "All")] if dry else []
        try:
            return (yield Request("POST", self.jobs_path(), resource, query))
        except AnswerError as error:
            if error.status == 409:
                raise AnswerError(
                    409,
                    f"there is a job {name} in the namespace {self.namespace} already",
                    f"Choose another name, or `{self._command(f'delete {name}')}`: its checkpoints "
                    "stay.",
                ) from error
            raise

    def change(self, name: str, body: Json, sub: str = "") -> Question[Json]:
        """Merge keys into a job."""
        path = self.jobs_path(name, sub)
        try:
            return (yield Request("PATCH", path, body, [self._manager], MERGE))
        except AnswerError as error:
            yield from self._explained(name, error)
            raise

    def suspend(self, name: str, wanted: bool = True) -> Question[Json]:
        """Let a job save its state and free its nodes, or go on from there."""
        yield from self.living(name)
        return (yield from self.change(name, {"spec": {"runPolicy": {"suspend": wanted}}}))

    def scale(self, name: str, nodes: int) -> Question[Json]:
        """Give a job another number of nodes."""
        yield from self.living(name)
        return (yield from self.change(name, {"spec": {"replicas": nodes}}, "scale"))

    def cancel(self, name: str) -> Question[Json]:
        """End a job for good, and keep it: by a deadline that is over at once."""
        job = yield from self.living(name)
        if figures.state(job) == State.SUSPENDED or not part(job, "status", "startTime"):
            raise ClientError(
                f"{name} does not run, so there is nothing to end",
                f"`{self._command(f'delete {name}')}` removes it.",
            )
        deadline = {"runPolicy": {"activeDeadlineSeconds": 1}}
        return (yield from self.change(name, {"spec": deadline}))

    def delete(self, name: str, *, waits: bool = False) -> Question[Json]:
        """Delete a job and its pods; to be waited for, its pods go first."""
        body = {"propagationPolicy": "Foreground" if waits else "Background"}
        try:
            return (yield Request("DELETE", self.jobs_path(name), body))
        except AnswerError as error:
            yield from self._explained(name, error)
            raise

    def pods(self, name: str) -> Question[list[Json]]:
        """The pods of a job, by slot and incarnation."""
        query = [("labelSelector", f"{names.LABEL_JOB}={name}")]
        found = yield from self.everything(self.core_path("pods"), query)
        return sorted(found, key=_order)

    def events(self, uid: str) -> Question[list[Json]]:
        """The events on an object, oldest first."""
        query = [("fieldSelector", f"involvedObject.uid={uid}")]
        found = yield from self.everything(self.core_path("events"), query)
        return sorted(found, key=_time)

    def pod_warnings(self, job: Json) -> Question[list[Json]]:
        """The warnings on the pods of a job, gone ones too, oldest first."""
        query = [("fieldSelector", "involvedObject.kind=Pod,type=Warning")]
        found = yield from self.everything(self.core_path("events"), query)
        # By name: of a pod that is gone nothing else is left.
        pods = re.compile(rf"{re.escape(figures.name_of(job))}-\d+-\d+")
        made = str(job["metadata"].get("creationTimestamp") or "")
        ours = [
            event
            for event in found
            if pods.fullmatch(str(part(event, "involvedObject", "name"))) and _time(event) >= made
        ]
        return sorted(ours, key=_time)

    def _command(self, words: str) -> str:
        return command(words, self._options)

    def _explained(self, name: str, error: AnswerError) -> Question[None]:
        """Raise the error for a job that is not there with the nearest name, or with where to look.

        Any other error is left as it is.
        """
        if error.status != 404 or error.code != NOT_FOUND:
            return
        remedy = f"`{self._command('list')}` shows what there is; -n chooses another namespace."
        try:
            jobs = yield from self.jobs()
            remedy = did_you_mean(name, [figures.name_of(job) for job in jobs]) or remedy
        except ClientError:
            # Who may read one job need not be allowed to list them.
            pass
        raise AnswerError(
            404,
            f"there is no {names.KIND} {name} in the namespace {self.namespace}",
            clean_line(remedy),
            NOT_FOUND,
        ) from error


def _path(root: str, namespace: str, plural: str, name: str, sub: str) -> str:
    place = ["namespaces", namespace] if namespace else []
    parts = [*place, plural, *([name] if name else []), *([sub] if sub else [])]
    return "/".join([root, *(quote(part, safe="") for part in parts)])


def _time(event: Json) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _order(pod: Json) -> tuple[int, int, str]:
    labels: Mapping[str, str] = pod["metadata"].get("labels") or {}
    slot, incarnation = labels.get(names.LABEL_SLOT, ""), labels.get(names.LABEL_INCARNATION, "")
    return _number(slot), _number(incarnation), str(pod["metadata"]["name"])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else -1


def document(data: bytes, address: str) -> Json:
    """The JSON of an answer.

    An object that nobody can decode is shown without the field at fault, so that it spoils no list
    of others; the key ``unreadable`` then says which and why, and no API server takes it back.
    """
    # pydantic takes time, and the client that has asked has imported it already.
    from inception_operator.contract.decoding import UNREADABLE, MalformedError, decode_answer

    try:
        found = decode_answer(data)
    except MalformedError as error:
        message = f"{address} has not answered with JSON"
        raise ClientError(message, code=UNAVAILABLE) from error
    for each in [found, *(found.get("items") or [])]:
        if UNREADABLE in each:
            each[UNREADABLE] = " ".join(each[UNREADABLE])
    return found


def check(status: int, data: bytes, request: str, options: str) -> None:
    """Raise what an answer means that is a refusal; ``options`` as of `Questions`."""
    if status < 300:
        return
    refuse(status, status_of(data), data, request, options)


def status_of(data: bytes) -> Json:
    """The Status of an answer, by which the API server and the kubelet tell success and refusal;
    empty where there is none.
    """
    from inception_operator.contract.decoding import MalformedError, decode_object

    try:
        return decode_object(data)
    except MalformedError:
        return {}


def seconds_until_again(status: int, retry_after: str | None, tries: int) -> float | None:
    """After how long a request that was refused so is sent once more; None for never.

    The rule of kubectl: the API server says so where it has not begun with it, because it is busy
    or starts.
    """
    if tries >= _TRIES or not (status == _BUSY or status >= 500):
        return None
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return 1.0 if status == _BUSY else None
    return min(float(retry_after), _LONGEST_PAUSE)


def unreachable(address: str, error: BaseException) -> ClientError:
    """No answer has come."""
    return ClientError(
        f"the API server {address} cannot be reached: {clean_line(error)}",
        "Is the cluster up, and is it the right context? `kubectl config current-context`",
        UNAVAILABLE,
    )


def _is_about_rights(request: str, message: str) -> bool:
    """Whether a 403 is for want of rights, and not a webhook's, a policy's or a quota's.

    Those judge what is written; the API server's own refusals say what somebody cannot do.
    """
    is_judged = request.startswith(("POST ", "PATCH ", "PUT ", "DELETE ", "exec "))
    return not is_judged or not message or _NO_RIGHT in message


def refuse(status: int, answer: Json, data: bytes, request: str, options: str = "") -> NoReturn:
    """Raise what a refusal means for the user."""
    message = clean_line(answer.get("message") or data[:300].decode("utf-8", "replace"))
    if status == 401:
        raise AnswerError(
            status,
            "the API server does not know you: the credentials of the kubeconfig are wrong or old",
            "Log in again as for kubectl; `kubectl auth whoami` says who you are.",
            FORBIDDEN,
        )
    if status == 403 and _is_about_rights(request, str(answer.get("message") or "")):
        raise AnswerError(
            status,
            message or f"{request} is forbidden",
            "Ask an administrator for the role edit (view, to look only) in this namespace: the "
            f"operator's chart adds its kind to them. `{command('doctor', options)}` lists what "
            "you may do.",
            FORBIDDEN,
        )
    if status == 404 and not (answer.get("details") or {}).get("name") and names.GROUP in request:
        raise AnswerError(
            status,
            f"the API server knows no {names.KIND} ({names.API_VERSION})",
            "The operator's CustomResourceDefinition is not installed: docs/install.md, or another "
            "--context.",
            UNAVAILABLE,
        )
    if status == _BUSY:
        message = f"the API server is too busy: {message}"
    may_mend = status == _BUSY or status >= 500
    code = NOT_FOUND if status == 404 else UNAVAILABLE if may_mend else FAILED
    raise AnswerError(status, message or f"{request}: {status}", code=code)
