"""The operator, dying without a word right after its n-th write: ``python crashing_operator.py N
run …``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from inception_operator.__main__ import main
from inception_operator.runtime import client

CRASHED = 77


def crash_after(writes: int) -> None:
    """Make the process end as soon as the answer to that write has come in."""
    send = client.Client._send
    done = 0

    async def counted(self: client.Client, verb: str, *arguments: Any, **options: Any) -> Any:
        nonlocal done
        answer = await send(self, verb, *arguments, **options)
        if verb not in ("get", "list", "watch"):
            done += 1
            if done >= writes:
                os._exit(CRASHED)
        return answer

    client.Client._send = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    crash_after(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
