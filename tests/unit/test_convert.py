"""Jobs of other operators become InceptionTrainings, and nothing of them is lost without a word."""

from __future__ import annotations

import copy
import io
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate
import pytest
import yaml

import foreign
from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.contract.names import KIND
from inception_operator.plugin.convert.__main__ import main
from inception_operator.plugin.convert.join import Conversion, convert
from inception_operator.plugin.convert.ledger import path_text
from inception_operator.plugin.convert.notes import Outcome
from inception_operator.pod.build import build_pod
from inception_operator.spec.job import parse
from inception_trainer.launcher import torchrun
from nightly import but_nightly

ROOT = pathlib.Path(__file__).resolve().parents[2]
Path = tuple[str | int, ...]

# What a document says in vain, so that another word there changes nothing: names that only its own
# parts refer to, numbers that must be the same as others, and the address of something elsewhere.
WITHOUT_EFFECT = re.compile(
    r"spec\.runtimeRef\.apiGroup"
    r"|.*\.completions|.*\.completionMode"
    r"|.*spec\.containers\[\d\]\.name|spec\.replicatedJobs\[\d\]\.name|spec\.tasks\[\d\]\.name"
    r"|spec\.template\.spec\.replicatedJobs\[\d\]\.name|metadata\.namespace"
    r"|spec\.mpiReplicaSpecs\.Launcher\.replicas"
    r"|spec\.pytorchReplicaSpecs\.\w+\.restartPolicy"
    r"|spec\.plugins\.pytorch\[2\]"
    # Options of torchrun in a second group of pods, where only the program counts.
    r"|spec\.(pytorchReplicaSpecs\.Worker|replicatedJobs\[1\]\.template\.spec)"
    r"\.template\.spec\.containers\[0\]\.command\[1\]"
    r"|spec\.policies\[[01]\]\.event"
)


ONE_OF_EACH_KIND = (
    "jobset-leader",
    "mpijob-ddp",
    "pytorchjob-eight-gpus",
    "trainjob-patched",
    "volcano-torchrun",
)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    elif isinstance(value, list) and value:
        for index, child in enumerate(value):
            yield from leaves(child, (*path, index))
    elif value is not None:
        yield path, value


def objects(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        yield path
    for key, child in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield from objects(child, (*path, key))


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return str(int(value) + 1) if value.isdecimal() else f"{value}-x7"
    return {**value, "x7": "x7"} if isinstance(value, dict) else [*value, "x7"]


def replaced(document: Any, path: Path, value: Any) -> Any:
    changed = copy.deepcopy(document)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def is_noted(made: Conversion, path: Path) -> bool:
    """Whether a note is about the field, a part of it or what it is a part of."""
    text = path_text(path)
    fields = [note.field for note in made.notes]
    parts = {path_text(path[:end]) for end in range(1, len(path) + 1)}
    return any(field in parts or field.startswith((f"{text}.", f"{text}[")) for field in fields)


def jobs(name: str) -> list[tuple[list[Any], int, Any]]:
    """The documents of a file, and of each one that is converted where it is and what it says."""
    documents = foreign.read(name)
    if documents[0]["kind"] == "List":
        documents = documents[0]["items"]
    return [
        (documents, index, each)
        for index, each in enumerate(documents)
        if "." in each["apiVersion"]
    ]


@pytest.mark.parametrize("name", foreign.NAMES)
def test_what_becomes_of_a_job_is_what_was_found_right(name: str) -> None:
    assert foreign.page(convert(foreign.read(name))) == foreign.expected(name)


@pytest.mark.parametrize("name", but_nightly(foreign.NAMES, ONE_OF_EACH_KIND))
def test_every_word_of_a_job_is_carried_over_or_noted(name: str) -> None:
    before = convert(foreign.read(name))
    carried = {value for _, value in leaves(list(before.resources)) if isinstance(value, str)}
    lost = []
    for documents, index, job in jobs(name):
        for path, value in leaves(job):
            if is_noted(before, path) or WITHOUT_EFFECT.fullmatch(path_text(path)):
                continue
            # Long words that stand in the result are not tried one by one, to save time.
            if isinstance(value, str) and len(value) > 8 and value in carried:
                continue
            changed = [*documents]
            changed[index] = replaced(job, path, other(value))
            if convert(changed) == before:
                lost.append(path_text(path))
    assert lost == []


@pytest.mark.parametrize("name", foreign.NAMES)
def test_a_field_that_nobody_knows_is_carried_over_or_noted(name: str) -> None:
    for documents, index, job in jobs(name):
        places = list(objects(job))
        changed = [*documents]
        for number, path in enumerate(places):
            changed[index] = replaced(changed[index], (*path, "unheardOf"), f"x{number}x")
        made = convert(changed)
        carried = json.dumps(made.resources)
        lost = [
            path_text(path)
            for number, path in enumerate(places)
            if f"x{number}x" not in carried and not is_noted(made, (*path, "unheardOf"))
        ]
        assert (made.trainings, lost) == (1, [])


@pytest.mark.parametrize("name", foreign.NAMES)
def test_documents_are_left_as_they_are(name: str) -> None:
    documents = foreign.read(name)
    convert(documents)
    assert documents == foreign.read(name)


@pytest.mark.nightly
@pytest.mark.parametrize("name", foreign.NAMES)
def test_values_of_the_wrong_kind_never_break_the_conversion(name: str) -> None:
    for documents, index, job in jobs(name):
        paths = {path[:end] for path, _ in leaves(job) for end in range(1, len(path))}
        for path in paths:
            for wrong in ("x", 3, True, None, [], {}, ["x"], [None], {"x": "x"}):
                changed = [*documents]
                changed[index] = replaced(job, path, wrong)
                assert convert(changed).trainings in (0, 1)


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        ("deepspeed", ".command", "deepspeed starts the ranks by means"),
        ("horovod", ".command", "horovod brings its ranks together by MPI itself"),
        ("mpi-runtime", "spec.runtimeRef", "brings the ranks together by mpi"),
        ("mpi-script", ".command", "does more than call mpirun"),
        ("no-command", ".command", "set command to the image's ENTRYPOINT"),
        ("old-mpijob", "apiVersion", "bring it to v2beta1"),
        ("pi", ".command", "/home/mpiuser/pi is no Python program"),
        ("tfjob", "kind", "no training with PyTorch"),
        ("too-many-ranks", "spec.numProcPerNode", "8 ranks cannot share 2 devices"),
        ("torchtune", "spec.runtimeRef", "not one of torchrun"),
        ("two-vendors", ".resources", "amd.com/gpu and nvidia.com/gpu both count devices"),
    ],
)
def test_what_cannot_be_carried_over_is_refused_with_the_reason(
    name: str, field: str, words: str
) -> None:
    made = convert(foreign.read(f"refused/{name}"))
    (note,) = (each for each in made.notes if each.outcome is Outcome.REFUSED)
    assert (made.resources, made.trainings) == ((), 0)
    assert note.field.endswith(field)
    assert words in str(note)


def test_every_job_that_is_refused_has_its_reason_in_the_table() -> None:
    marks = test_what_cannot_be_carried_over_is_refused_with_the_reason.pytestmark  # type: ignore[attr-defined]
    assert [case[0] for case in marks[0].args[1]] == foreign.REFUSED


def pytorch_job(command: list[str], *, env: Any = None, **container: Any) -> dict[str, Any]:
    whole = {"name": "pytorch", "image": "i:1", "command": command, **container}
    if env:
        whole["env"] = [{"name": name, "value": value} for name, value in env.items()]
    replica = {"replicas": 1, "template": {"spec": {"containers": [whole]}}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "job"},
        "spec": {"pytorchReplicaSpecs": {"Worker": replica}},
    }


def converted(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The spec of a training, and its container."""
    (resource,) = convert([document]).resources
    spec = resource["spec"]
    return spec, spec["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("command", "program", "ranks"),
    [
        (["torchrun", "--nproc_per_node=2", "t.py"], ["torchrun", "t.py"], 2),
        (["torchrun", "--nproc-per-node", "2", "-m", "p"], ["torchrun", "-m", "p"], 2),
        (
            ["torchrun", "--no-python", "./t", "--role=x"],
            ["torchrun", "--no-python", "./t", "--role=x"],
            None,
        ),
        (
            ["/opt/bin/torchrun", "--nproc_per_node=$(RANKS)", "t.py"],
            ["/opt/bin/torchrun", "t.py"],
            3,
        ),
        (["python", "t.py", "--nnodes=2"], ["python", "t.py", "--nnodes=2"], 1),
        (["python3", "-m", "p"], ["python3", "-m", "p"], 1),
        (["sh", "-c", "exec python t.py"], ["python", "t.py"], 1),
        (
            ["sh", "-ec", "A=1 torchrun t.py --name 'a b'"],
            ["torchrun", "t.py", "--name", "a b"],
            None,
        ),
        (["sh", "-c", "python t.py $RANKS"], ["python", "t.py", "$(RANKS)"], 1),
        (["sh", "-c", "python t.py $OTHER"], ["sh", "-c", "python t.py $OTHER"], 1),
        (["sh", "-c", "python t.py > log"], ["sh", "-c", "python t.py > log"], 1),
        (["sh", "-c", "python t.py *.jpg"], ["sh", "-c", "python t.py *.jpg"], 1),
        (["sh", "-c", "cd src && python t.py"], ["sh", "-c", "cd src && python t.py"], 1),
        (["sh", "-c", "python t.py 'x"], ["sh", "-c", "python t.py 'x"], 1),
        (["./run.sh"], ["./run.sh"], 1),
    ],
)
def test_a_command_becomes_the_program_of_every_rank(
    command: list[str], program: list[str], ranks: int | None
) -> None:
    limits = {"limits": {"nvidia.com/gpu": 4}}
    job = pytorch_job(command, env={"RANKS": "3"}, resources=limits)
    spec, container = converted(job)
    assert [*container["command"], *container.get("args", ())] == program
    assert spec.get("numProcPerNode") == ranks


@pytest.mark.parametrize(
    ("script", "rewritten"),
    [
        ("make; torchrun t.py", "make; torchrun OURS t.py"),
        (
            "x | python -m torch.distributed.run --nnodes 2 t.py",
            "x | python -m torch.distributed.run OURS t.py",
        ),
        (
            "make\ntorchrun \\\n  --rdzv_endpoint=$(hostname):1 --standalone \\\n  -m p -r 3\n",
            "make\ntorchrun OURS \\\n  -m p -r 3\n",
        ),
        (
            "pip install torchrun-extras; torchrun 't.py'",
            "pip install torchrun-extras; torchrun OURS 't.py'",
        ),
    ],
)
def test_a_script_keeps_its_torchrun_with_the_address_of_the_job(
    script: str, rewritten: str
) -> None:
    spec, container = converted(pytorch_job(["bash", "-c", script]))
    ours = (
        "--nnodes=$WORLD_SIZE --node-rank=$RANK --nproc-per-node=auto "
        "--master-addr=$MASTER_ADDR --master-port=$MASTER_PORT"
    )
    assert container["command"][2] == rewritten.replace("OURS", ours)
    assert spec["numProcPerNode"] == 1


def test_devices_of_every_vendor_become_the_accelerator_of_its_profile() -> None:
    found = {}
    for resource in ("nvidia.com/gpu", "amd.com/gpu", "cambricon.com/mlu", "huawei.com/Ascend910"):
        job = pytorch_job(["torchrun", "t.py"], resources={"limits": {resource: "2", "cpu": 1}})
        spec, container = converted(job)
        assert container["resources"] == {"limits": {"cpu": 1}}
        found[resource] = spec["accelerator"]
    assert found == {
        "nvidia.com/gpu": {"profile": "nvidia", "devicesPerNode": 2},
        "amd.com/gpu": {"profile": "amd", "devicesPerNode": 2},
        "cambricon.com/mlu": {"profile": "cambricon", "devicesPerNode": 2},
        "huawei.com/Ascend910": {"profile": "ascend", "devicesPerNode": 2},
    }


@pytest.mark.parametrize(
    ("command", "noted"), [(["torchrun"], False), (["python", "t.py"], True)], ids=str
)
def test_a_number_of_the_node_is_told_of_where_the_program_reads_it(
    command: list[str], noted: bool
) -> None:
    job = pytorch_job(command, args=["--node_rank", "0", "t.py"])
    replicas = job["spec"]["pytorchReplicaSpecs"]
    replicas["Master"] = copy.deepcopy(replicas["Worker"])
    container = replicas["Worker"]["template"]["spec"]["containers"][0]
    container["args"] = ["--node_rank", "1", "t.py"]
    fields = {note.field for note in convert([job]).notes}
    path = "spec.pytorchReplicaSpecs.Worker.template.spec.containers[0].args"
    assert (path in fields) == noted


def test_privileged_containers_may_escalate_as_the_api_server_demands() -> None:
    job = pytorch_job(["python", "t.py"], securityContext={"privileged": True})
    _, container = converted(job)
    context = {"privileged": True, "allowPrivilegeEscalation": True}
    assert container["securityContext"] == context


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {"apiVersion": "kubeflow.org/v1"},
        {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob"},
        {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": 1, "spec": "x"},
        {**pytorch_job(["x"]), "spec": {"pytorchReplicaSpecs": {"Worker": 3}}},
        {**pytorch_job(["x"]), "spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": "2"}}}},
        pytorch_job([1]),  # type: ignore[list-item]
        pytorch_job(["x"], resources={"limits": {"nvidia.com/gpu": "1.5"}}),
    ],
    ids=str,
)
def test_documents_that_no_api_server_would_take_make_no_training(broken: Any) -> None:
    assert convert([broken]).trainings == 0


def test_the_command_writes_resources_to_stdout_and_notes_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(foreign.FOLDER / "list-of-a-cluster.yaml")
    assert main([path]) == 0
    written = capsys.readouterr()
    kinds = [each["kind"] for each in yaml.safe_load_all(written.out)]
    assert kinds == ["ConfigMap", "InceptionTraining"]
    assert "spec.futureField: not carried over" in written.err
    assert main([path, "-o", "json"]) == 0
    assert [each["kind"] for each in json.loads(capsys.readouterr().out)["items"]] == kinds


def test_the_command_reads_stdin_and_fails_when_nothing_was_convertible(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, labels: {a: é}}\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(config_map.encode()), "ascii"))
    assert main([]) == 1
    assert capsys.readouterr() == ("", "error: nothing was convertible\n")
    assert main(["no/such/file"]) == 2
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a: [b")))
    assert main(["-"]) == 2


@pytest.mark.parametrize("name", foreign.NAMES)
def test_the_launcher_understands_each_command_and_has_nothing_to_say_of_it(name: str) -> None:
    (training,) = (each for each in convert(foreign.read(name)).resources if each["kind"] == KIND)
    container = training["spec"]["template"]["spec"]["containers"][0]
    words = [*container["command"], *container.get("args", ())]
    command = torchrun.unwrap(words)
    assert command.notes == ()
    assert command.program[-1] == words[-1]


def strict(schema: Any) -> Any:
    """A schema of the CRD in which fields that the API server would prune are errors."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        made["type"] = ["integer", "string"]
    closed = "properties" in schema and schema.get("type") == "object"
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


@pytest.fixture(scope="module")
def spec_schema() -> jsonschema.Draft7Validator:
    crd = yaml.load((ROOT / "manifests/crd.yaml").read_bytes(), yaml.CSafeLoader)
    (version,) = crd["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return jsonschema.Draft7Validator(strict(spec))


@pytest.mark.parametrize("name", foreign.NAMES)
def test_trainings_and_their_pods_have_no_field_that_the_api_does_not_know(
    name: str, spec_schema: jsonschema.Draft7Validator
) -> None:
    (training,) = (each for each in convert(foreign.read(name)).resources if each["kind"] == KIND)
    spec_schema.validate(training["spec"])
    metadata = {"name": "job", "namespace": "default", "uid": "1"}
    job = parse({**training, "metadata": metadata})
    devices = resolve(job, load_profiles())
    pod = build_pod(job, devices, 0, 1, image=job.image or "i:1", launcher_image="l:1")
    kubernetes_validate.validate(pod, "1.36", strict=True)
