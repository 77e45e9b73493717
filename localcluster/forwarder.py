"""Makes the API server of a cluster with its own network namespace reachable from outside of it.

The listening socket belongs to the namespace in which it was made (outside); connections are made
by a thread that has moved into the cluster's namespace. Both ends use the same loopback address, so
one kubeconfig serves both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

from .linux import enter_network_namespace

_CHUNK = 1 << 18


def start(port: int, listener: socket.socket, namespace_pid: int) -> None:
    """Forward from now on, until the process ends."""
    arguments = (port, listener, namespace_pid)
    threading.Thread(target=_run, args=arguments, name="forwarder", daemon=True).start()


def _run(port: int, listener: socket.socket, namespace_pid: int) -> None:
    enter_network_namespace(namespace_pid)
    asyncio.run(_serve(port, listener))


async def _serve(port: int, listener: socket.socket) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await _relay(port, reader, writer)
        writer.close()

    server = await asyncio.start_server(relay, sock=listener, limit=_CHUNK)
    await server.serve_forever()


async def _relay(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port, limit=_CHUNK)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_copy(reader, inner_writer), name="forward-request")
            tasks.create_task(_copy(inner_reader, writer), name="forward-answer")
    except* OSError:
        pass  # one side reset the connection: nothing is left to forward
    finally:
        inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
