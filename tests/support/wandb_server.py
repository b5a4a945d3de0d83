"""A wandb server as far as a run needs one: it keeps each history line at its offset, and fails as a test says.

wandb works against it unmodified, with `environment` in its environment. Two things that a server does not tell anyone
are told here: a line that was sent again, and one that another line replaced.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from otel_train.bridge.wandb_rows import STEP_KEY

ENTITY = "fake-entity"
HISTORY_FILE, SUMMARY_FILE = "wandb-history.jsonl", "wandb-summary.json"


@dataclass(slots=True)
class _Run:
    project: str = ""
    config: str = "{}"
    started: bool = False
    lines: dict[int, str] = field(default_factory=dict)
    repeated: list[int] = field(default_factory=list)
    overwritten: list[int] = field(default_factory=list)
    exit_code: int | None = None
    preempting: bool = False
    summary: dict[str, Any] = field(default_factory=dict)

    def put(self, offset: int, line: str) -> None:
        if offset in self.lines:
            (self.repeated if self.lines[offset] == line else self.overwritten).append(offset)
        self.lines[offset] = line

    def last_lines(self) -> list[str]:
        return [self.lines[max(self.lines)]] if self.lines else []

    def last_step(self) -> int:
        return max((int(json.loads(line)["_step"]) for line in self.last_lines()), default=-1)


class FakeWandb:
    """The server, on a loopback port that it keeps when it is stopped and started again.

    What a test may set while it runs; all of it holds for every request:
        status: Answer with this and do nothing else: UNAUTHORIZED refuses the key, SERVICE_UNAVAILABLE is down.
        delay: Seconds to wait before anything is done. A request that waits goes on when this gets smaller.
        drop: Do what is asked, then close the connection in the middle of the answer.
        deleted: Runs that somebody has deleted: their ids are taken for ever.
    What it may read: `requests`, how many came, also those that wait or get `status`; `views`, the
    workspaces that were saved.
    """

    def __init__(self) -> None:
        self.status: HTTPStatus | None = None
        self.delay = 0.0
        self.drop = False
        self.deleted: set[str] = set()
        self.requests = 0
        self.views: list[dict[str, Any]] = []
        self._runs: defaultdict[str, _Run] = defaultdict(_Run)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._http: ThreadingHTTPServer | None = None
        self._port = 0

    def start(self) -> Self:
        """Listen, and answer in threads."""
        self._stopped.clear()
        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening; what was recorded stays."""
        self._stopped.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address that it listens on."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which wandb works against it."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "a" * 40}

    def add(self, run_id: str, row: dict[str, Any]) -> None:
        """Have a row of a run, as if somebody had sent it before."""
        with self._lock:
            run = self._runs[run_id]
            run.started = True
            run.put(len(run.lines), json.dumps(row))

    def history(self, run_id: str) -> list[dict[str, Any]]:
        """Return a run's rows in the order of their offsets, which have no gap."""
        with self._lock:
            lines = self._runs[run_id].lines
            assert sorted(lines) == list(range(len(lines))), f"a gap in the offsets of {run_id}: {sorted(lines)}"
            return [json.loads(lines[offset]) for offset in sorted(lines)]

    def exit_code(self, run_id: str) -> int | None:
        """Return the exit code of a run that was finished last, None for one that is not."""
        with self._lock:
            return self._runs[run_id].exit_code

    def is_preempting(self, run_id: str) -> bool:
        """Tell whether a run was said to be about to be preempted."""
        with self._lock:
            return self._runs[run_id].preempting

    def config(self, run_id: str) -> dict[str, Any]:
        """Return a run's config, without wandb's own."""
        with self._lock:
            config = json.loads(self._runs[run_id].config)
        return {key: entry["value"] for key, entry in config.items() if not key.startswith("_")}

    def summary(self, run_id: str) -> dict[str, Any]:
        """Return a run's summary."""
        with self._lock:
            return dict(self._runs[run_id].summary)

    def steps(self, run_id: str) -> list[int]:
        """Return the train steps of a run's rows, after a check that no line was sent twice or overwritten."""
        assert not self.overwritten(run_id)
        assert not self.repeated(run_id)
        return [row[STEP_KEY] for row in self.history(run_id)]

    def repeated(self, run_id: str) -> list[int]:
        """Return the offsets whose line was sent again, the same: what a client does that saw no answer."""
        with self._lock:
            return list(self._runs[run_id].repeated)

    def overwritten(self, run_id: str) -> list[int]:
        """Return the offsets whose line another one replaced: a row is lost."""
        with self._lock:
            return list(self._runs[run_id].overwritten)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                answer(self)

            do_PUT = do_POST  # noqa: N815  # a file's upload

            def log_message(self, *_: object) -> None:
                """Keep the tests' output clean."""

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"] or 0))
        with self._lock:
            self.requests += 1
        began = time.monotonic()
        while time.monotonic() < began + self.delay and not self._stopped.is_set():
            time.sleep(0.02)
        if self._stopped.is_set():
            return
        with self._lock:
            status, reply = self._reply(request, body) if self.status is None else (self.status, {})
        with suppress(ConnectionError):  # who asked may have given up
            if self.drop:
                request.wfile.write(b"HTTP/1.0 2")
                return
            request.send_response(status)
            request.send_header("Content-Type", "application/json")
            request.end_headers()
            request.wfile.write(json.dumps(reply).encode())

    def _reply(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[HTTPStatus, dict[str, Any]]:
        match request.path.strip("/").split("/"):
            case ["graphql"]:
                return HTTPStatus.OK, self._graphql(json.loads(body))
            case ["files", _, _, run_id, "file_stream"]:
                sent = json.loads(body)
                history = sent.get("files", {}).get(HISTORY_FILE, {"offset": 0, "content": []})
                for line in sent.get("files", {}).get(SUMMARY_FILE, {"content": []})["content"]:
                    self._runs[run_id].summary = json.loads(line)
                self._runs[run_id].preempting |= bool(sent.get("preempting"))
                if sent.get("complete"):
                    self._runs[run_id].exit_code = sent["exitcode"]
                for offset, line in enumerate(history["content"], start=history["offset"]):
                    self._runs[run_id].put(offset, line)
                return HTTPStatus.OK, {"limits": {}}
            case ["storage", *_]:
                return HTTPStatus.OK, {}
        return HTTPStatus.NOT_FOUND, {}

    def _graphql(self, request: dict[str, Any]) -> dict[str, Any]:
        operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "CreateRunFiles": self._create_files,
            "MarkRunFilesUploaded": lambda _: {"markRunFilesUploaded": {"success": True}},
            "Run": self._run,
            "RunHistoryKeys": self._run,
            "RunResumeStatus": self._resume_status,
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "UpsertBucket": self._upsert,
            "UpsertView2": self._upsert_view,
            "GetDefaultEntity": lambda _: {"viewer": {"id": "V", "entity": ENTITY}},
            "Viewer": lambda _: {"viewer": {"id": "V", "entity": ENTITY, "username": ENTITY, "flags": "{}"}},
        }
        name = request.get("operationName") or request["query"].split("(")[0].split("{")[0].split()[-1]
        if name not in operations:
            return {"data": None, "errors": [{"message": f"the fake server knows no operation {name}"}]}
        variables = request.get("variables") or {}
        if name == "UpsertBucket" and variables.get("name") in self.deleted:
            why = f"run {variables['name']} was previously created and deleted; try a new run name"
            return {"data": {"upsertBucket": None}, "errors": [{"message": why}]}
        return {"data": operations[name](variables)}

    def _upsert(self, asked: dict[str, Any]) -> dict[str, Any]:
        run_id = asked.get("name") or asked["id"].removeprefix("ID-")
        run = self._runs[run_id]
        inserted, run.started = not run.started, True
        run.project = asked.get("project") or run.project
        run.config = asked.get("config") or run.config
        return {"upsertBucket": {"bucket": self._described(run_id), "inserted": inserted}}

    def _upsert_view(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.views.append(asked)
        return {"upsertView": {"view": {"id": f"V{len(self.views)}", "name": asked["name"]}, "inserted": True}}

    def _resume_status(self, asked: dict[str, Any]) -> dict[str, Any]:
        run_id = asked["name"]
        bucket = self._described(run_id) if self._runs[run_id].started else None
        return {"model": {"id": "P", "name": asked["project"], "entity": {"id": "E", "name": ENTITY}, "bucket": bucket}}

    def _run(self, asked: dict[str, Any]) -> dict[str, Any]:
        started = self._runs[asked["name"]].started
        return {"project": {"run": self._described(asked["name"]) if started else None}}

    def _described(self, run_id: str) -> dict[str, Any]:
        """Return a run with all the fields that any operation asks for."""
        run = self._runs[run_id]
        return {
            "id": f"ID-{run_id}",
            "name": run_id,
            "displayName": run_id,
            "state": "running",
            "projectId": "1",
            "project": {"id": "P", "name": run.project, "entity": {"id": "E", "name": ENTITY}},
            "config": run.config,
            "wandbConfig": json.dumps({"t": {}}),  # says that the run has begun
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.lines),
            "historyTail": json.dumps(run.last_lines()),
            "historyKeys": {"lastStep": run.last_step(), "keys": {}, "sets": []},
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "tags": [],
        }

    def _create_files(self, asked: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}
