"""Enough of Kubernetes' API for kubectl to create, apply, read and delete our objects.

It stores what it is given after checking it against Kubernetes' own schemas. Nothing runs in it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

from tests.support.kube_kinds import VERSION, Json, collection, discovery
from tests.support.kube_protobuf import from_protobuf

# `kubectl create` writes Kubernetes' own kinds so.
_PROTOBUF = b"k8s\0"


class KubeApi(ThreadingHTTPServer):
    """objects: by path. kubeconfig: of a client that comes here."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Json] = {}
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {
                            "name": "c",
                            "cluster": {"server": f"http://127.0.0.1:{self.server_address[1]}"},
                        }
                    ],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
                    "current-context": "c",
                }
            ),
            encoding="utf-8",
        )

    def names(self, kind: str) -> list[str]:
        return [o["metadata"]["name"] for o in self.objects.values() if o["kind"] == kind]


@contextmanager
def kube_api(folder: Path) -> Iterator[KubeApi]:
    server = KubeApi(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: KubeApi
    timeout = 5

    def do_GET(self) -> None:
        path, query = self._path()
        fixed = discovery(path)
        if fixed is not None:
            self._answer(200, fixed)
        elif path.endswith("/log"):
            self._answer(200, "a line of a log\n")
        elif kind := collection(path):
            wanted = parse_qs(query).get("labelSelector", [""])[0]
            self._answer(
                200,
                {
                    "apiVersion": kind.version,
                    "kind": f"{kind.name}List",
                    "metadata": {},
                    "items": [
                        item
                        for place, item in self.server.objects.items()
                        if place.startswith(f"{path}/") and _selected(item, wanted)
                    ],
                },
            )
        else:
            self._found(path)

    def do_POST(self) -> None:
        path, _ = self._path()
        item, kind = self._body(), collection(path)
        if kind is None:
            return self._missing(path)
        namespace = path.split("/namespaces/")[1].split("/")[0] if kind.namespaced else ""
        if namespace and namespace not in self.server.names("Namespace"):
            return self._missing(f"namespace {namespace}")
        if kind.known:
            try:
                kubernetes_validate.validate(item, VERSION, strict=True)
            except kubernetes_validate.ValidationError as error:
                return self._answer(422, _status(422, "Invalid", str(error)))
        item["metadata"] |= {"uid": str(len(self.server.objects)), "resourceVersion": "1"}
        self.server.objects[f"{path}/{item['metadata']['name']}"] = item
        return self._answer(201, item)

    def do_PATCH(self) -> None:
        path, _ = self._path()
        if path in self.server.objects:
            self.server.objects[path]["metadata"] |= self._body().get("metadata", {})
        self._found(path)

    def do_DELETE(self) -> None:
        path, _ = self._path()
        self._body()
        if self.server.objects.pop(path, None) is None:
            self._missing(path)
        else:
            self._answer(200, {"apiVersion": "v1", "kind": "Status", "status": "Success"})

    def _found(self, path: str) -> None:
        if path in self.server.objects:
            self._answer(200, self.server.objects[path])
        else:
            self._missing(path)

    def _missing(self, what: str) -> None:
        self._answer(404, _status(404, "NotFound", f"{what} not found"))

    def _path(self) -> tuple[str, str]:
        parts = urlsplit(self.path)
        return parts.path, parts.query

    def _body(self) -> Json:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if text.startswith(_PROTOBUF):
            return from_protobuf(text.removeprefix(_PROTOBUF))
        body: Json = json.loads(text or b"{}")
        return body

    def _answer(self, code: int, body: Json | str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(code)
        kind = "text/plain" if isinstance(body, str) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def _selected(item: Json, wanted: str) -> bool:
    labels = item["metadata"].get("labels", {})
    return all(
        labels.get(pair.partition("=")[0]) == pair.partition("=")[2]
        for pair in wanted.split(",")
        if pair
    )


def _status(code: int, reason: str, message: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "code": code,
        "message": message,
    }
