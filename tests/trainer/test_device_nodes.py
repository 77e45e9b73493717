"""Device nodes that the trainer's user may not open: named with their group and the remedy.

The nodes are real ones, and looked at by a process with another user, as in a pod.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inception_trainer.config.settings import Settings
from inception_trainer.config.training import AcceleratorConfig
from inception_trainer.device import accelerator, nodes
from inception_trainer.errors import ConfigError

USER = 10001
GROUP = 4242
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A /dev of the test's own, which everybody may list."""
    folder = Path(tempfile.mkdtemp(prefix="t-dev-"))
    folder.chmod(0o755)
    monkeypatch.setattr(nodes, "DEV", folder)
    yield folder
    shutil.rmtree(folder)


def make_node(path: Path, mode: int, group: int = GROUP) -> Path:
    """A node of the kernel's null device."""
    path.parent.mkdir(exist_ok=True)
    os.mknod(path, stat.S_IFCHR | mode, os.makedev(1, 3))
    path.chmod(mode)
    os.chown(path, 0, group)
    return path


def as_user(function: Callable[[], str], groups: tuple[int, ...] = ()) -> str:
    """What a function answers in a process of the trainer's user with these additional groups."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([USER, *groups])
            os.setgid(USER)
            os.setuid(USER)
            os.write(writer, function().encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return answer


def test_a_node_that_cannot_be_opened_is_named_with_its_group_and_the_remedy(dev: Path) -> None:
    make_node(dev / "davinci0", 0o660)
    make_node(dev / "dri" / "renderD128", 0o660, group=4243)
    make_node(dev / "dri" / "card0", 0o600)
    make_node(dev / "null", 0o600)
    make_node(dev / "open0", 0o666)
    (dev / "file").write_text("no device")
    text = as_user(nodes.explain_closed)
    assert text == (
        f"user 10001 with the groups 10001 cannot open "
        f"{dev}/davinci0 (owner 0, group 4242, mode 0660); "
        f"{dev}/dri/renderD128 (owner 0, group 4243, mode 0660); "
        "set spec.template.spec.securityContext.supplementalGroups: [4242, 4243] in the job"
    )
    assert as_user(nodes.explain_closed, groups=(4242, 4243)) == ""
    # Root may open everything.
    assert nodes.explain_closed() == ""


def test_a_node_whose_group_has_no_rights_needs_another_mode(dev: Path) -> None:
    make_node(dev / "kfd", 0o600, group=0)
    text = as_user(nodes.explain_closed)
    assert "kfd (owner 0, group 0 root, mode 0600); give the group rights" in text
    assert "supplementalGroups" not in text


def test_the_nodes_of_a_whole_machine_are_nobodys_question(dev: Path) -> None:
    make_node(dev / "davinci0", 0o660)
    make_node(dev / "kmsg", 0o660)
    assert as_user(nodes.explain_closed) == ""


def test_many_nodes_are_counted(dev: Path) -> None:
    for number in range(16):
        make_node(dev / f"davinci{number:02d}", 0o660)
    text = as_user(nodes.explain_closed)
    assert "davinci03 (owner 0, group 4242, mode 0660); and 12 more; set" in text


def test_a_missing_accelerator_is_explained_by_the_nodes(dev: Path) -> None:
    """What torch says about the device comes first, then why."""
    make_node(dev / "kfd", 0o660)
    config = AcceleratorConfig(device="cuda", profile="amd")

    def answer() -> str:
        try:
            accelerator.resolve(config, "Auto", Settings())
        except ConfigError as error:
            return str(error)
        return "no error"

    text = as_user(answer)
    assert text.startswith("accelerator.device: 'cuda' (profile amd) is not available")
    assert f"; user 10001 with the groups 10001 cannot open {dev}/kfd (" in text
    assert text.endswith("supplementalGroups: [4242] in the job")
    assert "cannot open" not in as_user(answer, groups=(GROUP,))
