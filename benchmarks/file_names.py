"""What the names of a large image folder cost in memory, in a rank and in each loader worker.

The names are like ImageNet's: 1.28 million files in 1,000 folders. A worker is a fork that looks at
each name once, as a loader worker does in the course of an epoch; what counts is the memory that is
then its own. Beside the trainer's table stands the list of (path, class) that it had before.

    PYTHONPATH=trainer python -m benchmarks.file_names
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from inception_trainer.data.files import FileList, Files

CLASSES = 1000
ROOT = "/data/imagenet/train"


def private_megabytes() -> float:
    """Memory of this process that it shares with no other."""
    fields = dict(
        line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    )
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) / 1000


def names_by_class(files: int) -> Iterator[tuple[str, list[str], int]]:
    """Folder, names and class number."""
    for label in range(CLASSES):
        wnid = f"n{label * 9973 % 10**8:08d}"
        count = files * (label + 1) // CLASSES - files * label // CLASSES
        yield f"{ROOT}/{wnid}/", [f"{wnid}_{number}.JPEG" for number in range(count)], label


def table(files: int) -> Files:
    """As the trainer keeps them."""
    result = FileList("/data/imagenet")
    for folder, names, label in names_by_class(files):
        result.add_folder(folder, names, label)
    return result.build()


def pairs(files: int) -> list[tuple[str, int]]:
    """As it kept them before."""
    return [
        (f"{folder}{name}", label)
        for folder, names, label in names_by_class(files)
        for name in names
    ]


def own_memory_of(work: Callable[[], object]) -> float:
    """Megabytes that a fork has of its own after ``work``."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        before = private_megabytes()
        work()
        os.write(writer, str(private_megabytes() - before).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(process, 0)
    return float(text)


def measure_table(files: int) -> dict[str, float]:
    kept = table(files)

    def look() -> None:
        for index in range(len(kept)):
            kept.name(index)

    return {"rank": kept.nbytes / 1e6, "worker": own_memory_of(look)}


def measure_pairs(files: int) -> dict[str, float]:
    before = private_megabytes()
    kept = pairs(files)
    rank = private_megabytes() - before

    def look() -> None:
        for path, label in kept:
            str(path)
            int(label)

    return {"rank": rank, "worker": own_memory_of(look)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_281_167)
    files = parser.parse_args().files
    # The table first: what the list leaves behind in this process would count for nobody.
    figures = {"table": measure_table(files), "list": measure_pairs(files)}
    rounded = {
        name: {who: round(megabytes, 1) for who, megabytes in of_kind.items()}
        for name, of_kind in figures.items()
    }
    print(json.dumps({"files": files, "megabytes": rounded}))


if __name__ == "__main__":
    main()
