"""A headless Chromium that opens one page at a time, driven by its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from localcluster.toolchain import ensure_packages

PROGRAM = "chromium-headless-shell"
SECONDS = 60.0
"""For the browser to start, and for each of its answers; a busy machine needs many."""
DOMAINS = ("Page", "Runtime", "Log", "Network")
Json = dict[str, Any]


class Tab:
    """One tab. ``complaints`` are errors and warnings of the page, ``requests`` what it loaded."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0
        self._loaded = False
        self.complaints: list[str] = []
        self.requests: list[str] = []

    async def call(self, method: str, **parameters: Any) -> Json:
        """Call a method of the protocol; its result."""
        self._calls += 1
        number = self._calls
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._receive()
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                result: Json = message["result"]
                return result

    async def open(self, url: str, width: int, *, dark: bool = False) -> None:
        """Load a page into a window of this width, until it is shown."""
        for domain in DOMAINS:
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        answer = await self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        while not self._loaded:
            await self._receive()

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page, as JSON has it."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def screenshot(self) -> bytes:
        """The whole page as PNG, not just what the window shows."""
        answer = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    async def _receive(self) -> Json:
        message: Json = await asyncio.wait_for(self._socket.receive_json(), SECONDS)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, about: Json) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(about["exceptionDetails"]["text"])
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.complaints.append(str(about["args"]))
        elif event == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(about["entry"]["text"])


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Tab]:
    """A browser with one tab, whose profile is in this folder."""
    if shutil.which(PROGRAM) is None:
        await asyncio.to_thread(ensure_packages, (PROGRAM, "fonts-dejavu-core"))
    command = (
        PROGRAM,
        # Root may not use Chromium's sandbox, and pages of tests are our own.
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
    )
    with (folder / "log").open("wb") as log:
        # The program on the path is a shell script that waits for the browser: a signal to it alone
        # would leave the browser behind.
        process = subprocess.Popen(  # noqa: ASYNC220
            command, stdout=log, stderr=log, start_new_session=True
        )
    try:
        port = await _port(process, folder)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = await answer.json()
            (tab,) = [each for each in tabs if each["type"] == "page"]
            url = tab["webSocketDebuggerUrl"]
            async with session.ws_connect(url, max_msg_size=2**26) as socket:
                yield Tab(socket)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        await asyncio.to_thread(process.wait, SECONDS)


async def _port(process: subprocess.Popen[bytes], folder: Path) -> int:
    """Where it listens, which the browser writes into its profile."""
    async with asyncio.timeout(SECONDS):
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            file = folder / "DevToolsActivePort"
            if file.exists() and (lines := file.read_text().splitlines()):
                return int(lines[0])
            await asyncio.sleep(0.05)
