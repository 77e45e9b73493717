"""The part of MLflow's REST API that the trainer uses, over runs in memory.

The package mlflow-skinny brings the client and no server. Values are kept as they come, so that a
metric that is sent twice is there twice, as in a file store.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PREFIX = "/api/2.0/mlflow/"


class MlflowServer:
    """A tracking server; its faults are set from outside."""

    def __init__(self) -> None:
        self.experiments: list[str] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.authorizations: set[str | None] = set()
        self.hangs = threading.Event()
        """While set, requests are not answered."""
        self.mute_batches = 0
        """So many batches are kept and answered with an error."""
        self.lock = threading.Lock()

    def points(self, tag: str) -> list[tuple[int, float]]:
        """The points of a curve of the only run, in the order in which they came."""
        [run] = self.runs.values()
        return [(int(each["step"]), each["value"]) for each in run["metrics"] if each["key"] == tag]

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        method = path.removeprefix(PREFIX).replace("/", "_").replace("-", "_")
        handler = getattr(self, f"_{method}", None)
        if not path.startswith(PREFIX) or handler is None:
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": path}
        with self.lock:
            self.requests.append(method)
            result: tuple[int, dict[str, Any]] = handler(body)
            return result

    def _experiments_get_by_name(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = body["experiment_name"]
        if name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": name}
        number = str(self.experiments.index(name))
        found = {"experiment_id": number, "name": name, "lifecycle_stage": "active"}
        return 200, {"experiment": found}

    def _experiments_create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.experiments.append(body["name"])
        return 200, {"experiment_id": str(len(self.experiments) - 1)}

    def _runs_search(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        found = []
        for run in self.runs.values():
            texts = [f"tags.`{tag}` = '{value}'" for tag, value in run["tags"].items()]
            if body["filter"] in texts:
                found.append(_as_run(run))
        return 200, {"runs": found}

    def _runs_create(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        identity = f"run{len(self.runs)}"
        tags = {each["key"]: each["value"] for each in body["tags"]}
        run = {"id": identity, "experiment": body["experiment_id"], "name": body["run_name"]}
        self.runs[identity] = run | {"tags": tags, "params": {}, "metrics": [], "status": "RUNNING"}
        return 200, {"run": _as_run(self.runs[identity])}

    def _runs_get(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"run": _as_run(self.runs[body["run_id"]])}

    def _runs_update(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = self.runs[body["run_id"]]
        run["status"] = body["status"]
        return 200, {"run_info": _as_run(run)["info"]}

    def _runs_log_batch(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = self.runs[body["run_id"]]
        for each in body.get("params", ()):
            if run["params"].setdefault(each["key"], each["value"]) != each["value"]:
                return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": each["key"]}
        run["metrics"] += body.get("metrics", ())
        run["tags"] |= {each["key"]: each["value"] for each in body.get("tags", ())}
        if body.get("metrics") and self.mute_batches:
            self.mute_batches -= 1
            return 400, {"error_code": "BAD_REQUEST", "message": "kept, and not told"}
        return 200, {}


def _as_run(run: dict[str, Any]) -> dict[str, Any]:
    last: dict[str, dict[str, Any]] = {}
    for metric in run["metrics"]:
        if metric["key"] not in last or int(metric["step"]) >= int(last[metric["key"]]["step"]):
            last[metric["key"]] = metric
    info = {"run_id": run["id"], "experiment_id": run["experiment"], "status": run["status"]}
    info |= {"lifecycle_stage": "active", "start_time": 1, "run_name": run["name"]}
    pairs = {
        name: [{"key": key, "value": value} for key, value in run[name].items()]
        for name in ("params", "tags")
    }
    return {"info": info, "data": {**pairs, "metrics": list(last.values())}}


@contextmanager
def serving(server: MlflowServer, port: int = 0) -> Iterator[str]:
    """Serve on a port of this machine; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            self._answer({name: values[0] for name, values in query.items()})

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self._answer(json.loads(self.rfile.read(length) or b"{}"))

        def _answer(self, body: dict[str, Any]) -> None:
            server.authorizations.add(self.headers.get("Authorization"))
            while server.hangs.is_set():
                time.sleep(0.02)
            status, content = server.answer(urlsplit(self.path).path, body)
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        server.hangs.clear()
        http.shutdown()
        http.server_close()
        thread.join()
