"""``doctor``: the rights of a user, each with the commands that need it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import UNAVAILABLE, AnswerError, ClientError
from inception_operator.contract import names
from inception_operator.plugin import doctor

Json = dict[str, Any]
Right = tuple[str, str]
EXEC = "(for checkpoints, checkpoints promote, debug)"
HELPER = "(for checkpoints promote, where no pod of the job runs)"


class Server(Cluster):
    """Answers what a user may do in the namespace team."""

    def __init__(self, denied: Collection[Right], refusal: ClientError | None = None) -> None:
        super().__init__(chosen_namespace="team")
        self.denied, self.refusal = denied, refusal
        self.asked: list[Json] = []

    @property
    def address(self) -> str:
        return "https://server"

    def request(self, method: str, path: str, body: Any = None, *_: Any, **__: Any) -> Json:
        if path == "/version":
            return {"gitVersion": "v1.36.3"}
        if path == f"/apis/{names.API_VERSION}":
            return {"resources": [{"name": names.PLURAL}, {"name": f"{names.PLURAL}/scale"}]}
        if self.refusal is not None:
            raise self.refusal
        assert (method, path) == (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        )
        asked: Json = body["spec"]["resourceAttributes"]
        self.asked.append(asked)
        what = "/".join(part for part in (asked["resource"], asked["subresource"]) if part)
        return {"status": {"allowed": (asked["verb"], what) not in self.denied}}

    def everything(self, path: str, query: Any = ()) -> list[Json]:
        raise AnswerError(403, "you may not")


def finding(server: Server) -> doctor.Finding:
    """What is said of the rights."""
    (found,) = (each for each in doctor.examine(server, None) if "rights" in each.subject)
    return found


@pytest.mark.parametrize(
    ("denied", "said"),
    [
        (("create", "pods/exec"), f"create pods/exec {EXEC}"),
        (("get", "pods/exec"), f"get pods/exec {EXEC}"),
        (("create", "pods"), f"create pods {HELPER}"),
        (("get", "pods"), f"get pods {HELPER}"),
        (("delete", "pods"), f"delete pods {HELPER}"),
        (("get", names.PLURAL), f"get {names.PLURAL} (for describe, logs, wait)"),
        (("patch", f"{names.PLURAL}/scale"), f"patch {names.PLURAL}/scale (for scale)"),
    ],
    ids=str,
)
def test_a_right_that_is_missing_is_named_with_its_commands_and_the_remedy(
    denied: Right, said: str
) -> None:
    found = finding(Server({denied}))
    assert (found.verdict, found.subject) == ("warning", "your rights in team")
    assert found.text == f"you may not {said}. The role edit has all of them."


def test_each_right_is_asked_for_in_the_namespace_and_once() -> None:
    server = Server(())
    assert finding(server).verdict == "ok"
    assert {each["namespace"] for each in server.asked} == {"team"}
    asked = [tuple(sorted(each.items())) for each in server.asked]
    assert len(asked) == len(set(asked))
    groups = {each["group"] for each in server.asked if each["resource"] == names.PLURAL}
    assert groups == {names.GROUP}


def test_all_rights_that_are_missing_stand_in_one_line() -> None:
    text = finding(Server({("create", "pods/exec"), ("create", "pods")})).text
    assert f"create pods/exec {EXEC}; create pods {HELPER}" in text


def test_a_server_that_does_not_tell_rights_is_no_reason_to_stop() -> None:
    server = Server((), ClientError("no answer", code=UNAVAILABLE))
    found = list(doctor.examine(server, None))
    assert [each.verdict for each in found] == ["ok", "ok", "warning", "warning", "warning"]
    assert found[2].text == "the API server does not tell them"
