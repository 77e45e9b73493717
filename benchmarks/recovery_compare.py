"""Compares the final checkpoints of two runs, tensor by tensor and bit by bit; prints JSON.

    python recovery_compare.py undisturbed/final.pt disturbed/final.pt

Parameters, the optimizer's state, and the statistics of batch norm stand apart: of a pod that is
lost the last are lost too, and do not enter training.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import torch

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
GROUPS = ("parameters", "optimizer", "statistics")


def tensors(tree: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a checkpoint by the path of keys that leads to them."""
    if isinstance(tree, torch.Tensor):
        yield name, tree
    elif isinstance(tree, dict):
        for key, child in tree.items():
            yield from tensors(child, f"{name}.{key}" if name else str(key))


def group_of(name: str) -> str | None:
    """Which group a tensor belongs to, None for what is no state of the training."""
    part = name.partition(".")[0]
    if part == "rank_statistics" or name.endswith(STATISTICS):
        return "statistics"
    return {"model": "parameters", "optimizer": "optimizer"}.get(part)


def compare(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Of each group: the tensors, how many of them differ, and by how much at most."""
    mine = dict(tensors(one))
    theirs = dict(tensors(other))
    found = {name: {"tensors": 0, "differ": 0, "most": 0.0} for name in GROUPS}
    for name in sorted(mine.keys() | theirs.keys()):
        group = group_of(name)
        if group is None:
            continue
        found[group]["tensors"] += 1
        left, right = mine.get(name), theirs.get(name)
        if left is None or right is None or left.shape != right.shape:
            found[group]["differ"] += 1
            found[group]["most"] = float("inf")
        elif not torch.equal(left, right):
            most = (left.double() - right.double()).abs().max().item()
            found[group]["differ"] += 1
            found[group]["most"] = max(found[group]["most"], most)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("undisturbed")
    parser.add_argument("disturbed")
    options = parser.parse_args()
    one, other = (
        torch.load(path, map_location="cpu", weights_only=True)
        for path in (options.undisturbed, options.disturbed)
    )
    print(json.dumps(compare(one, other)))


if __name__ == "__main__":
    main()
