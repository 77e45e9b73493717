"""A leader that writes as fast as it can, as a process to be frozen: ``python busy_leader.py URL``.

Its Lease is a short one: it may write for two seconds after a renewal. With a second argument it
leads without an election and creates one pod of so many bytes.
"""

from __future__ import annotations

import asyncio
import math
import sys
from contextlib import suppress

from kubernetes.aio.client.configuration import Configuration

from inception_operator.contract.errors import ApiError, LeadershipLostError
from inception_operator.runtime.client import PODS, Client
from inception_operator.runtime.fence import Fence
from inception_operator.runtime.leader import Leader
from inception_operator.runtime.settings import Settings

WRITERS = 8
RENEW_DEADLINE = 2.0
LOST = 3


def client_of(url: str, fence: Fence) -> Client:
    """A client of a server without TLS."""
    configuration = Configuration(host=url)
    configuration.client_session_kwargs = {"trust_env": False}
    return Client(configuration, fence=fence)


async def create_large(url: str, size: int) -> None:
    """Create one pod of ``size`` bytes."""
    fence = Fence()
    fence.lead_until(math.inf)
    await client_of(url, fence).create(PODS, "ns", {"metadata": {"name": "x" * size}})


async def main(url: str) -> int:
    """Lead and write until the Lease is lost; answers the exit code."""
    fence = Fence()
    client = client_of(url, fence)
    settings = Settings(
        trainer_image="-",
        lease_duration=3.0,
        lease_renew_deadline=RENEW_DEADLINE,
        lease_retry_period=0.2,
    )
    leader = Leader(client, settings, fence)
    await leader.acquire()

    async def write() -> None:
        while True:
            # What was under way in a freeze gets no answer in time; the operator tries again too.
            with suppress(ApiError):
                await client.create(PODS, "ns", {"metadata": {"name": "pod"}})

    code = 0
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(leader.renew())
            for _ in range(WRITERS):
                group.create_task(write())
    except* LeadershipLostError:
        code = LOST
    finally:
        await client.close()
    return code


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(create_large(sys.argv[1], int(sys.argv[2])))
    else:
        sys.exit(asyncio.run(main(sys.argv[1])))
