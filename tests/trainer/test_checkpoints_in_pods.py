"""`kubectl inception checkpoints` understands what the trainer writes."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from inception_operator.plugin import in_pod
from inception_operator.plugin.checkpoints import files_table
from inception_trainer.checkpoint.folder import FolderCheckpoints


def test_the_list_is_what_the_trainer_has_saved(tmp_path: Path) -> None:
    saving = FolderCheckpoints(tmp_path, 1, keep=2)
    saving.acquire()
    for step in (10, 20):
        saving.commit({}, step, best=step == 10, final=False)
    source = Path(in_pod.__file__).read_text(encoding="utf-8")
    command = [sys.executable, "-I", "-c", source, str(tmp_path)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found["latest"] == "step-000000020.pt"
    header, *lines = files_table(found, datetime.now(UTC)).splitlines()
    assert header.split() == ["FILE", "STEP", "SIZE", "SAVED"]
    rows = {line.split()[0]: line for line in lines}
    assert {name: row.split()[1] for name, row in rows.items()} == {
        "best.pt": "-",
        "step-000000010.pt": "10",
        "step-000000020.pt": "20",
    }
    goes_on = [name for name, row in rows.items() if row.endswith("goes on from it")]
    assert goes_on == ["step-000000020.pt"]
