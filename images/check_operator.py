"""Check an assembled operator: its links lead somewhere, it lists and watches over its client.

The build stage runs it inside the new file system, so that an image which lacks a module is never
made. It is read from standard input and not part of the image.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from pathlib import Path

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from inception_operator.accelerators.resolve import DIRECTORY
from inception_operator.runtime.app import run
from inception_operator.runtime.client import JOBS, Client

ITEM = {"metadata": {"name": "one", "namespace": "default"}}


async def answer(request: web.Request) -> web.Response:
    """An API server with one job, seen by a list and then by a watch."""
    if "watch" in request.query:
        return web.Response(text=json.dumps({"type": "ADDED", "object": ITEM}) + "\n")
    return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [ITEM]})


def dangling_links() -> list[str]:
    """The links in the file system that lead nowhere."""
    links = (Path(folder, name) for folder, _, names in os.walk("/") for name in names)
    return [str(path) for path in links if path.is_symlink() and not path.exists()]


async def main() -> None:
    """List and watch once."""
    application = web.Application()
    application.router.add_get(JOBS.path(), answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    client = Client(Configuration(host=f"http://{host}:{port}"))
    try:
        page = await client.list_page(JOBS, {})
        assert page["items"] == [ITEM], page
        events = [event async for event in client.watch(JOBS, {}, idle=5)]
        assert events == [{"type": "ADDED", "object": ITEM}], events
    finally:
        await client.close()
        await runner.cleanup()
    # Its module imports all that the running operator needs, kopf among it.
    assert asyncio.iscoroutinefunction(run)
    assert len(list(DIRECTORY.glob("*.yaml"))) > 10, "profiles are missing"
    assert dangling_links() == []
    assert ssl.create_default_context().get_ca_certs(), "certificates are missing"


asyncio.run(main())
