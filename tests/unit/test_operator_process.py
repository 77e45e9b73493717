"""What surrounds the work: HTTP, metrics, logs, the command line, kopf's settings."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
from kubernetes.aio.client.configuration import Configuration

from inception_operator.__main__ import main, parse
from inception_operator.contract import names as api
from inception_operator.contract.errors import SettingsError
from inception_operator.contract.shard import Shard
from inception_operator.runtime import job_watch
from inception_operator.runtime.job_cache import JobCache
from inception_operator.runtime.logs import JsonFormatter, TextFormatter
from inception_operator.runtime.metrics import Metrics
from inception_operator.runtime.server import Server
from inception_operator.runtime.settings import Settings
from operator_objects import job


async def fetch(port: int, path: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


async def test_the_server_tells_what_is_wrong() -> None:
    problem: str | None = None
    told: list[tuple[str, ...]] = []

    def notify(*names: str) -> bool:
        told.append(names)
        return names[2] == "job-0-1"

    server = Server(
        "127.0.0.1",
        0,
        healthy=lambda: problem,
        ready=lambda: "listing",
        metrics=lambda: b"one 1\n",
        notify=notify,
    )
    await server.start()
    try:
        assert await fetch(server.port, "/healthz") == (200, "ok")
        problem = "pod watch: no sign of life for 200 s"
        assert await fetch(server.port, "/healthz") == (503, problem)
        assert await fetch(server.port, "/readyz") == (503, "listing")
        assert await fetch(server.port, "/metrics") == (200, "one 1\n")
        assert (await fetch(server.port, "/other"))[0] == 404
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
            for path, status in (
                ("/ring/ns/job/job-0-1", 202),
                ("/ring/ns/job/other", 404),
                ("/ring/ns/job", 404),
            ):
                async with session.post(path) as response:
                    assert response.status == status
        assert told == [("ns", "job", "job-0-1"), ("ns", "job", "other")]
    finally:
        await server.close()


def sample(metrics: Metrics, series: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"inception_operator_{series}", labels)


def test_series_of_a_training_come_from_its_status_and_vanish_with_it() -> None:
    jobs: list[dict[str, Any]] = [
        job(
            state="Running",
            accelerator="cpu",
            model="bninception",
            restarts=3,
            restartsCountTowardsMax=2,
            trainerStatus={
                "progressPercentage": 42,
                "accuracyTop1": "0.97",
                "samplesPerSecond": "812.5",
            },
        )
    ]
    metrics = Metrics(lambda: jobs)
    one = {"namespace": "ns", "name": "job"}
    assert sample(metrics, "job_info", **one, accelerator="cpu", model="bninception") == 1
    assert sample(metrics, "job_state", **one, state="Running") == 1
    assert sample(metrics, "job_restarts", **one, counted="true") == 2
    assert sample(metrics, "job_restarts", **one, counted="false") == 1
    assert sample(metrics, "job_progress_ratio", **one) == pytest.approx(0.42)
    assert sample(metrics, "job_accuracy_ratio", **one, k="1") == 0.97
    assert sample(metrics, "job_accuracy_ratio", **one, k="5") is None
    assert sample(metrics, "job_samples_per_second", **one) == 812.5
    jobs.clear()
    assert sample(metrics, "job_state", **one, state="Running") is None


def test_a_training_without_status_is_pending() -> None:
    metrics = Metrics(lambda: [job()])
    assert sample(metrics, "job_state", namespace="ns", name="job", state="Pending") == 1


def test_a_training_of_another_controller_has_no_series() -> None:
    foreign = job(state="Running")
    foreign["spec"]["runPolicy"] = {"managedBy": "kueue.x-k8s.io/multikueue"}
    metrics = Metrics(lambda: [foreign])
    assert sample(metrics, "job_state", namespace="ns", name="job", state="Running") is None


def test_known_series_start_at_zero() -> None:
    metrics = Metrics()
    assert sample(metrics, "job_transitions_total", state="Failed") == 0
    assert sample(metrics, "reconcile_total", result="error") == 0


def record(**extra: Any) -> logging.LogRecord:
    return logging.getLogger("inception_operator.x").makeRecord(
        "inception_operator.x",
        logging.WARNING,
        __file__,
        1,
        "hello %s",
        ("you",),
        None,
        extra=extra,
    )


def test_json_lines_name_the_training() -> None:
    line = json.loads(JsonFormatter().format(record(key=("ns", "job"))))
    assert line.pop("time")
    assert line == {
        "level": "warning",
        "logger": "inception_operator.x",
        "message": "hello you",
        "namespace": "ns",
        "name": "job",
    }


def test_text_lines_carry_tracebacks() -> None:
    made = record()
    try:
        raise ValueError("oops")
    except ValueError:
        made.exc_info = sys.exc_info()
    text = TextFormatter().format(made)
    assert "WARNING hello you" in text
    assert "ValueError: oops" in text
    assert "ValueError: oops" in json.loads(JsonFormatter().format(made))["exception"]


def test_the_command_line_becomes_settings() -> None:
    argv = (
        "run --trainer-image img --http-port 0 --lease-namespace ns --lease-name l "
        "--no-leader-election --workers 3"
    )
    settings = parse(
        [*argv.split(), "--log-format", "text", "--kubeconfig", "file"], {"KUBECONFIG": "other"}
    )
    assert settings.trainer_image == "img"
    assert settings.kubeconfig == Path("file")
    assert (settings.http_port, settings.workers, settings.leader_election) == (0, 3, False)
    assert (settings.lease_namespace, settings.lease_name, settings.log_format) == (
        "ns",
        "l",
        "text",
    )


@pytest.mark.parametrize(
    ("options", "namespaces"),
    [
        ([], ()),
        (["--namespaces", "a"], ("a",)),
        (["--namespaces", "b,a, b"], ("b", "a")),
        (["--namespaces", "a,b", "--namespaces=c"], ("a", "b", "c")),
    ],
    ids=["all", "one", "list", "repeated"],
)
def test_namespaces_are_a_list_or_repeated(options: list[str], namespaces: tuple[str, ...]) -> None:
    assert parse(["run", "--trainer-image", "i", *options], {}).namespaces == namespaces


@pytest.mark.parametrize(
    ("options", "user"),
    [([], 10001), (["--pod-user", "1234"], 1234), (["--pod-user", "none"], None)],
)
def test_whose_processes_those_of_jobs_are(options: list[str], user: int | None) -> None:
    assert parse(["run", "--trainer-image", "i", *options], {}).pod_user == user


def test_kubeconfig_falls_back_to_the_environment() -> None:
    assert parse(["run", "--trainer-image", "i"], {"KUBECONFIG": "other"}).kubeconfig == Path(
        "other"
    )
    assert parse(["run", "--trainer-image", "i"], {}).kubeconfig is None


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--http-port", "70000"),
        ("--workers", "0"),
        ("--trainer-image", ""),
        ("--trainer-pull-policy", "Sometimes"),
        ("--lease-name", ""),
        ("--advertise-address", "host"),
        ("--namespaces", ""),
        ("--namespaces", "a,"),
        ("--namespaces", "a,B"),
        ("--namespaces", "a.b"),
        ("--namespaces", "x" * 64),
        ("--metrics-port", "-1"),
        ("--pod-user", "0"),
        ("--pod-user", "root"),
        ("--pod-user", "2147483648"),
        ("--shard", "3"),
        ("--shard", "3/3"),
        ("--shard", "0/33"),
        ("--metrics-cert-path", "folder"),
    ],
)
def test_bad_values_are_named(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["run", "--trainer-image", "i", option, value], {})
    assert caught.value.code == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--metrics-cert-path with the folder of tls.crt and tls.key beside it"),
        (["--metrics-cert-path", "f", "--metrics-port", "8080"], "another port than --http-port"),
    ],
)
def test_a_guard_without_what_it_needs_is_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["run", "--trainer-image", "i", "--metrics-secure", *options], {})
    assert words in capsys.readouterr().err


def test_the_guard_of_the_metrics_becomes_settings() -> None:
    secure = ("--metrics-secure", "--metrics-cert-path", "folder")
    settings = parse(["run", "--trainer-image", "i", *secure], {})
    assert (settings.metrics_secure, settings.metrics_port) == (True, 8443)
    assert settings.metrics_cert_path == Path("folder")


def test_a_shard_becomes_settings_and_is_all_jobs_by_default() -> None:
    assert parse(["run", "--trainer-image", "i"], {}).shard.alone
    assert parse(["run", "--trainer-image", "i", "--shard", "1/3"], {}).shard == Shard(1, 3)


def test_shards_without_leader_election_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["run", "--trainer-image", "i", "--shard", "1/3", "--no-leader-election"], {})
    assert "--shard: expected no --no-leader-election beside it" in capsys.readouterr().err
    assert parse(
        ["run", "--trainer-image", "i", "--shard", "0/1", "--no-leader-election"], {}
    ).shard.alone


def test_lease_times_must_fit_together() -> None:
    with pytest.raises(SettingsError, match="lease times"):
        Settings(trainer_image="i", lease_duration=5)


def test_without_credentials_the_process_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    assert main(["run", "--trainer-image", "i", "--kubeconfig", str(tmp_path / "absent")]) == 1
    assert "no usable credentials" in capsys.readouterr().err


def test_kopf_writes_nothing_and_scans_nothing() -> None:
    settings = job_watch.make_settings()
    assert settings.scanning.disabled
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.queueing.worker_limit is None
    assert isinstance(settings.persistence.diffbase_storage, job_watch.NullDiffBase)
    assert isinstance(settings.persistence.progress_storage, job_watch.NullProgress)
    assert settings.persistence.diffbase_storage.build(body={"spec": 1}) == {}


async def test_kopf_uses_the_credentials_of_our_own_client() -> None:
    configuration = Configuration(host="https://server:6443", ssl_ca_cert="ca.pem")
    configuration.api_key["BearerToken"] = "bearer secret"
    info = await job_watch.connection_info(configuration)
    assert (info.server, info.ca_path) == ("https://server:6443", "ca.pem")
    assert (info.scheme, info.token) == ("Bearer", "secret")
    bare = await job_watch.connection_info(Configuration(host="http://server"))
    assert (bare.scheme, bare.token) == (None, None)


async def test_events_become_keys_once_per_change() -> None:
    jobs, notices = JobCache(), list[tuple[str, str]]()
    registry = job_watch.make_registry(Configuration(host="http://server"), jobs, notices.append)
    (handler,) = registry._watching.get_all_handlers()
    assert isinstance(registry, kopf.OperatorRegistry)
    assert handler.selector is not None
    assert handler.selector.group == api.GROUP
    for kind, version in (
        (None, 1),
        ("MODIFIED", 2),
        ("MODIFIED", 2),
        ("DELETED", 3),
        ("MODIFIED", 4),
    ):
        handle: Any = handler.fn
        await handle(event={"type": kind, "object": job(version=version)})
    assert notices == [("ns", "job")] * 3
    assert len(jobs) == 0
