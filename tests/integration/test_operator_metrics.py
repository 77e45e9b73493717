"""The guarded /metrics on the real API server: whose token it lets in, with the rights that the
chart gives, and what strangers can make the operator ask.
"""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from prometheus_client.parser import text_string_to_metric_families

from certificates import MountedSecret
from charts import plain
from cut_proxy import CutProxy
from inception_operator.runtime.metrics_access import ALLOWED_SECONDS, PER_ADDRESS
from localcluster import components
from localcluster.cluster import Cluster
from localcluster.progress import to_stderr
from operator_process import OperatorProcess
from trainings import wait_for

pytestmark = pytest.mark.timeout(600)

NAMESPACE = "guarded"
NAME = "guarded-operator"
RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")


class Page:
    """The guarded page of an operator that runs under its own account."""

    def __init__(self, api: Cluster, operator: OperatorProcess, secret: MountedSecret) -> None:
        self.api = api
        self.operator = operator
        self.secret = secret

    @property
    def port(self) -> int:
        found = re.findall(r"/metrics is on port (\d+), over TLS", self.operator.log)
        return int(found[-1])

    def get(self, token: str | None) -> tuple[int, str]:
        """Status and text of the answer to whoever has this token."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}/metrics", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.secret.trust()) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def settled(self, token: str) -> tuple[int, str]:
        """The answer to a token that others may keep waiting for a second."""

        def look() -> tuple[int, str] | None:
            answer = self.get(token)
            return answer if answer[0] != 503 else None

        return wait_for("an answer", look)

    def token(self, account: str) -> str:
        return self.api.kubectl("create", "token", account, f"--namespace={NAMESPACE}").strip()


@pytest.fixture(scope="module")
def accounts(training_api: Cluster) -> Iterator[Cluster]:
    """What the chart makes for the operator, and accounts of which some may read."""
    helm = str(components.build(["helm"], to_stderr)["helm"])
    values = "metrics.operator.secure.enabled=true,metrics.operator.secure.secretName=any"
    objects = plain.render(helm, f"--set=fullnameOverride={NAME},{values}", namespace=NAMESPACE)
    rights = [item for item in objects if item["kind"] in RIGHTS]
    metadata = {"namespace": NAMESPACE}
    people = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, **metadata}}
        for name in ("reader", "guest", "leaver")
    ]
    bound = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{NAME}-test"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": f"{NAME}-metrics-reader",
        },
        "subjects": [
            {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}
            for name in ("reader", "leaver")
        ],
    }
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    training_api.apply(namespace)
    training_api.apply(*rights, *people, bound)
    yield training_api
    for item in (*rights, bound):
        if item["kind"] != "ServiceAccount":
            training_api.kubectl("delete", item["kind"], item["metadata"]["name"])
    training_api.kubectl("delete", "namespace", NAMESPACE, "--timeout=50s")


@pytest.fixture
def proxy(accounts: Cluster, tmp_path: Path) -> Iterator[CutProxy]:
    with CutProxy(accounts.kubeconfig, tmp_path) as found:
        yield found


@pytest.fixture
def page(accounts: Cluster, proxy: CutProxy, tmp_path: Path) -> Iterator[Page]:
    document = yaml.safe_load(proxy.kubeconfig.read_text())
    account = ("create", "token", NAME, f"--namespace={NAMESPACE}")
    document["users"][0]["user"] = {"token": accounts.kubectl(*account).strip()}
    kubeconfig = tmp_path / "limited.yaml"
    kubeconfig.write_text(yaml.safe_dump(document))
    secret = MountedSecret(tmp_path / "secret")
    secure = ("--metrics-secure", "--metrics-port", "0", "--metrics-cert-path", str(secret.folder))
    with OperatorProcess(kubeconfig, tmp_path / "log", *secure) as operator:
        yield Page(accounts, operator, secret)
        assert "Traceback" not in operator.log


def test_the_page_is_for_accounts_with_the_right_and_for_nobody_else(page: Page) -> None:
    status, text = page.get(page.token("reader"))
    assert status == 200
    assert "inception_operator_leader" in text
    assert page.settled(page.token("guest")) == (
        403,
        f"system:serviceaccount:{NAMESPACE}:guest may not get /metrics",
    )
    assert page.get(None)[0] == 401
    assert page.settled("made-up")[0] == 401
    # The open port keeps what has no token, and gives no figures.
    assert [page.operator.fetch(path)[0] for path in ("/healthz", "/readyz", "/metrics")] == [
        200,
        200,
        404,
    ]


def test_a_token_that_has_ended_is_none(page: Page) -> None:
    token = page.token("reader")
    key_file = page.api.layout.pki("service-account.key")
    # Signed by the cluster's own key, so that the time is all that is wrong with the second one.
    assert page.settled(signed(token, key_file, ends_in=600))[0] == 200
    assert page.settled(signed(token, key_file, ends_in=-600))[0] == 401


def test_the_token_of_an_account_that_is_gone_is_none(page: Page) -> None:
    token = page.token("leaver")
    page.api.kubectl("delete", "serviceaccount", "leaver", f"--namespace={NAMESPACE}")
    assert page.settled(token)[0] == 401


def test_while_the_api_server_is_away_nobody_new_is_let_in(page: Page, proxy: CutProxy) -> None:
    reader, guest = page.token("reader"), page.token("guest")
    assert page.get(reader)[0] == 200
    with proxy.outage():
        assert page.get(guest) == (
            503,
            "the API server could not be asked about this token, try again",
        )
        assert page.get(reader)[0] == 200
    assert page.settled(guest)[0] == 403
    assert "nobody new gets /metrics" in page.operator.log


def test_made_up_tokens_make_the_operator_ask_a_few_times_a_second(page: Page) -> None:
    reader = page.token("reader")
    assert page.get(reader)[0] == 200
    before = questions(page.get(reader)[1])
    begun = time.monotonic()
    tokens = [f"made-up-{number}" for number in range(150)]
    with ThreadPoolExecutor(10) as strangers:
        answers = {status for status, _ in strangers.map(page.get, tokens)}
    seconds = time.monotonic() - begun
    assert answers == {401, 503}
    # A page may be a second old.
    after = questions(wait_for("a new page", lambda: newer(page, reader, before)))
    # The reader is asked for again once a minute.
    assert after - before <= PER_ADDRESS * (seconds + 2) + seconds / ALLOWED_SECONDS + 1
    assert after - before < len(tokens)


def newer(page: Page, token: str, before: float) -> str | None:
    status, text = page.get(token)
    assert status == 200, "those who were let in are not kept out by the others"
    return text if questions(text) > before else None


def questions(page: str) -> float:
    """How many tokens the API server was asked about."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "inception_operator_api_requests_total"
        and sample.labels["resource"] == "tokenreviews"
    )


def signed(token: str, key_file: Path, *, ends_in: int) -> str:
    """The same token with another end, signed as the API server signs."""
    head, body, _ = token.split(".")
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    now = int(time.time())
    claims |= {"iat": now - 3600, "nbf": now - 3600, "exp": now + ends_in}
    text = f"{head}.{encoded(json.dumps(claims).encode())}"
    key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
