"""Jobs that can never run are refused with the field and the remedy; all others are parsed with
their defaults.
"""

from __future__ import annotations

from typing import Any

import pytest

from inception_operator.contract.errors import SpecError
from inception_operator.spec.job import Job, parse


def job(name: str = "digits", **spec: Any) -> Job:
    return parse({"metadata": {"name": name, "namespace": "n", "uid": "u"}, "spec": spec})


def trainer(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "trainer", **fields}]}}


def test_defaults() -> None:
    found = job()
    assert (found.num_nodes, found.num_proc_per_node, found.max_restarts) == (1, None, 10)
    assert (found.accelerator.profile, found.checkpoint, found.suspend) == ("cpu", None, False)
    assert found.progress_deadline is None
    assert (found.image, found.model) == (None, "bninception")
    assert (found.success_policy, found.program) == ("All", ())


@pytest.mark.parametrize(
    ("spec", "model"),
    [
        ({"training": {"model": {"name": "inception_v3"}, "recipe": "r"}}, "inception_v3"),
        ({"training": {"recipe": "bninception-digits"}}, "bninception-digits"),
    ],
    ids=["model", "recipe"],
)
def test_model_column(spec: dict[str, Any], model: str) -> None:
    assert job(**spec).model == model


def test_explicit_values() -> None:
    found = job(
        numNodes=3,
        numProcPerNode=2,
        failurePolicy={"maxRestarts": 0, "progressDeadlineSeconds": 10},
        runPolicy={"suspend": True},
        checkpoint={"volumeClaimName": "c", "keep": 1},
    )
    assert (found.num_nodes, found.num_proc_per_node, found.max_restarts, found.suspend) == (
        3,
        2,
        0,
        True,
    )
    assert found.progress_deadline == 10
    assert found.checkpoint is not None
    assert found.checkpoint.options == {"keep": 1}


REFUSED = [
    pytest.param({"numNodes": 0}, "spec.numNodes: 0 is not a number from 1 to 1000", id="no nodes"),
    pytest.param({"numNodes": True}, "spec.numNodes", id="not a number"),
    pytest.param({"numProcPerNode": "many"}, "spec.numProcPerNode", id="word"),
    pytest.param(
        {"failurePolicy": {"maxRestarts": -1}}, "spec.failurePolicy.maxRestarts", id="negative"
    ),
    pytest.param(
        {"failurePolicy": {"progressDeadlineSeconds": -1}},
        "spec.failurePolicy.progressDeadlineSeconds: -1 is not a number from 0 to 604800",
        id="no deadline",
    ),
    pytest.param({"training": []}, "spec.training: must be an object", id="list"),
    pytest.param(
        {"template": {"spec": ["x"]}}, "spec.template.spec: must be an object", id="template list"
    ),
    pytest.param(
        {"checkpoint": {"keep": 1}}, "spec.checkpoint: needs exactly one", id="checkpoint nowhere"
    ),
    pytest.param(
        {"checkpoint": {"path": "/a", "uri": "s3://b"}},
        "spec.checkpoint: needs exactly one",
        id="two places",
    ),
    pytest.param(
        {"checkpoint": {"uri": "runs"}}, "spec.checkpoint.uri: must be a URI", id="no URI"
    ),
    pytest.param(
        {"checkpoint": {"path": "runs"}}, "spec.checkpoint.path: must be absolute", id="relative"
    ),
    pytest.param(
        {"template": {"spec": {"restartPolicy": "Always"}}},
        "restartPolicy: must be Never",
        id="restarts",
    ),
    pytest.param(
        {"template": {"spec": {"volumes": [{"name": "assignment"}]}}}, "volumes", id="volume"
    ),
    pytest.param(
        {"template": {"spec": {"volumes": [{"name": "inception-launcher"}]}}},
        "volumes",
        id="launcher",
    ),
    pytest.param(
        {"template": {"spec": {"initContainers": [{"name": "inception-launcher"}]}}},
        "initContainers: the name inception-launcher is taken",
        id="init container",
    ),
    pytest.param(
        {"template": trainer(args=["x"])},
        "containers[0].args: needs a command",
        id="arguments alone",
    ),
    pytest.param(
        {"template": trainer(readinessProbe={"periodSeconds": 5, "exec": {"command": ["true"]}})},
        r"containers[0].readinessProbe.exec: the launcher tells",
        id="readiness of its own",
    ),
    pytest.param(
        {"template": trainer(command=["bash"]), "training": {"recipe": "r"}},
        "spec.training: configures the bundled trainer",
        id="program and training",
    ),
    pytest.param(
        {"successPolicy": "Any"},
        "spec.successPolicy: 'Any' is none of All, Chief",
        id="success policy",
    ),
    pytest.param(
        {"template": {"spec": {"containers": [{"name": "main"}]}}},
        "name it trainer",
        id="misnamed container",
    ),
]


@pytest.mark.parametrize(("spec", "words"), REFUSED)
def test_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as refused:
        job(**spec)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        "PET_NNODES",
        "MASTER_ADDR",
        "MASTER_PORT",
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "INCEPTION_CONFIG",
        "POD_IP",
    ],
)
def test_reserved_variables(name: str) -> None:
    with pytest.raises(SpecError, match=rf"containers\[0\]\.env: {name} is set by"):
        job(template=trainer(env=[{"name": "OK", "value": "1"}, {"name": name, "value": "1"}]))


def test_the_list_of_preloaded_modules_is_free() -> None:
    found = job(template=trainer(env=[{"name": "INCEPTION_PRELOAD", "value": "transformers"}]))
    assert found.trainer_overlay["env"]


@pytest.mark.parametrize(
    ("overlay", "program"),
    [
        ({}, ()),
        ({"command": ["python3", "t.py"]}, ("python3", "t.py")),
        ({"command": ["torchrun"], "args": ["t.py", "--lr=1"]}, ("torchrun", "t.py", "--lr=1")),
    ],
    ids=["bundled", "command", "with arguments"],
)
def test_program(overlay: dict[str, Any], program: tuple[str, ...]) -> None:
    found = job(template=trainer(**overlay))
    assert found.program == program
    assert found.model == ("" if program else "bninception")


@pytest.mark.parametrize("name", ["a" * 46, "Upper", "dot.ted", "-dash", "dash-"])
def test_names_that_do_not_fit(name: str) -> None:
    with pytest.raises(SpecError, match=r"^metadata\.name: "):
        job(name)


def test_other_probes_and_the_times_of_ours_are_the_users() -> None:
    probe = {"exec": {"command": ["true"]}}
    template = trainer(livenessProbe=probe, startupProbe=probe, readinessProbe={"periodSeconds": 5})
    assert job(template=template).pod_overlay["containers"] == template["spec"]["containers"]


def test_other_containers_are_welcome() -> None:
    found = job(
        template={
            "spec": {"containers": [{"name": "logs", "image": "l:1", "env": [{"name": "RANK"}]}]}
        }
    )
    assert found.trainer_overlay == {}
