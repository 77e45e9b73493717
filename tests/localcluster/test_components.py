"""Which components there are, how they are built, where they land."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from localcluster import components, controlplane, paths, toolchain
from localcluster.components import COMPONENTS, Component
from localcluster.errors import BuildError
from localcluster.model import ClusterSpec, Flavour


@pytest.mark.parametrize("component", COMPONENTS.values(), ids=COMPONENTS.keys())
def test_every_component_is_pinned_as_a_tool_of_its_module(component: Component) -> None:
    text = (component.folder / "go.mod").read_text()
    assert component.package == "." or re.search(
        rf"^(\t|tool ){re.escape(component.package)}$", text, re.MULTILINE
    )


@pytest.mark.parametrize(
    "path",
    sorted(paths.GO_MODULES.glob("*/go.*")),
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_modules_name_no_server_and_no_folder_of_a_machine(path: Path) -> None:
    assert not re.search(r"https?://|=> [./]", path.read_text())


def test_modules_of_the_demo_require_the_same_versions_so_that_these_compile_once() -> None:
    programs = components.select(controlplane.required_components(ClusterSpec(dns=False)))
    versions: dict[str, set[str]] = {}
    for folder in {program.folder for program in programs}:
        text = (folder / "go.mod").read_text()
        replaced = dict(re.findall(r"(\S+) => \S+ (v\S+)", text))
        for name, version in re.findall(r"^\s+(\S+) (v\S+)(?! =>)", text, re.MULTILINE):
            versions.setdefault(name, set()).add(replaced.get(name, version))
    several = {name for name, found in versions.items() if len(found) > 1}
    # containerd implements another version of this interface.
    assert several <= {"k8s.io/cri-api", "cyphar.com/go-pathrs"}


def test_the_specs_of_all_flavours_name_known_components() -> None:
    for flavour in get_args(Flavour):
        spec = ClusterSpec(flavour=flavour, kwok_nodes=1)
        components.select(controlplane.required_components(spec))


def test_a_node_has_dns_unless_it_is_told_not_to() -> None:
    names = set(controlplane.required_components(ClusterSpec()))
    assert names - set(controlplane.required_components(ClusterSpec(dns=False))) == {"coredns"}


def test_a_control_plane_builds_nothing_of_a_node() -> None:
    names = controlplane.required_components(ClusterSpec(flavour="control-plane"))
    assert set(names) == {
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubectl",
    }


def test_an_unknown_component_is_named() -> None:
    with pytest.raises(BuildError, match="unknown component nonsense; known: pause, etcd"):
        components.select(["etcd", "nonsense"])


def test_selection_keeps_the_order_of_the_table() -> None:
    assert [one.name for one in components.select(["kubectl", "etcd"])] == ["etcd", "kubectl"]


def test_kubernetes_programs_report_the_pinned_version() -> None:
    version = components.pinned_version(COMPONENTS["kubectl"].folder, "k8s.io/kubernetes")
    assert version == "v1.36.3"
    flags = " ".join(components.version_ldflags(version))
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in flags
    assert "-X k8s.io/client-go/pkg/version.gitMinor=36" in flags


def test_the_place_of_a_binary_follows_its_pins_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "GO_MODULES", tmp_path)
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "go.mod").write_text("module thing\n")
    seen = {components.fingerprint(Component("thing", "thing", "."))}
    seen.add(components.fingerprint(Component("thing", "thing", ".", tags=("seccomp",))))
    seen.add(components.fingerprint(Component("thing", "thing", ".", cgo=True)))
    (tmp_path / "thing" / "go.sum").write_text("another pin\n")
    seen.add(components.fingerprint(Component("thing", "thing", ".")))
    assert len(seen) == 4


def test_nothing_is_built_when_everything_is_there(cache: Path) -> None:
    path = components.binary_path(COMPONENTS["pause"])
    path.parent.mkdir(parents=True)
    path.touch()
    said: list[str] = []
    assert components.build(["pause"], said.append) == {"pause": path}
    assert said == []
    assert (cache / "bin" / "pause").resolve() == path.resolve()


def test_a_component_that_does_not_build_shows_what_go_said(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(tmp_path, monkeypatch, "#!/bin/sh\necho main.go:3: undefined: x >&2\nexit 1\n")
    with pytest.raises(BuildError, match=r"(?s)pause does not build.*main.go:3: undefined: x"):
        components.build(["pause"])
    assert not (cache / "bin" / "pause").exists()


# Does what `go build` does with several packages: a program for each, called as its folder.
FAKE_GO = """#!/bin/sh
test "$1" = mod && exit
while test "$1" != -o; do shift; done
output=$2
shift 2
case $output in
*/) for package; do touch "$output$(basename "$package")"; done ;;
*) touch "$output" ;;
esac
"""


def fake_go(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str = FAKE_GO) -> None:
    go = folder / "go"
    go.write_text(text)
    go.chmod(0o755)
    monkeypatch.setattr(toolchain, "find_go", lambda progress: go)
    monkeypatch.setattr(toolchain, "ensure_packages", lambda names, progress: None)


def test_every_component_is_built_and_linked(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(tmp_path, monkeypatch)
    said: list[str] = []
    components.build(["etcd", "containerd", "ctr"], said.append)
    assert said[0] == "building etcd (0 of 3 programs are there)"
    assert said[2] == "building containerd, ctr (1 of 3 programs are there)"
    paths = components.build(COMPONENTS)
    assert list(paths) == list(COMPONENTS)
    assert all((cache / "bin" / name).resolve() == path for name, path in paths.items())
    assert not components.not_built(COMPONENTS)
    assert not list((cache / "store").glob("*/.partial"))


def test_sources_that_cannot_be_downloaded_are_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(tmp_path, monkeypatch, "#!/bin/sh\necho no network >&2\nexit 1\n")
    with pytest.raises(BuildError, match="the sources of etcd cannot be downloaded: no network"):
        components.download(["etcd"])


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go1.26.8\n", (1, 26, 8)),
        ("go1.27", (1, 27, 0)),
        ("go1.27rc1", (1, 27, 0)),
        ("", (0,)),
        ("devel", (0,)),
    ],
)
def test_go_versions(text: str, version: tuple[int, ...]) -> None:
    assert toolchain.parse_go_version(text) == version


def test_a_missing_package_is_one_clear_sentence_for_an_ordinary_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(toolchain, "missing_packages", tuple)
    monkeypatch.setattr("localcluster.toolchain.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("localcluster.toolchain.os.geteuid", lambda: 1000)
    with pytest.raises(
        BuildError, match="missing Debian packages; run: sudo apt-get install gcc nftables"
    ):
        toolchain.ensure_packages(["gcc", "nftables"])


def test_an_old_go_on_the_path_is_passed_over(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, private = tmp_path / "go", cache / "toolchain" / "go" / "bin" / "go"
    private.parent.mkdir(parents=True)
    for path, version in ((old, "go1.19.8"), (private, "go1.26.8")):
        path.write_text(f"#!/bin/sh\necho {version}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert toolchain.find_go() == private


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(folder))
    return folder
