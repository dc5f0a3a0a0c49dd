"""A writable hub on loopback that stores what clients upload.

It speaks the protocol with which huggingface_hub makes a repository on https://huggingface.co,
lists it, uploads large files (the basic transfer of Git LFS) and commits; hub.py answers reads.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from hub import Answer, Hub, Repository
from server import FileServer

TOKEN, READS_ONLY = "hf_writes", "hf_reads"
ATTRIBUTES = b"*.onnx filter=lfs diff=lfs merge=lfs -text\n"
LICENSES = {"apache-2.0", "mit", "cc-by-nc-4.0", "other"}


def blob_id(content: bytes) -> str:
    """The ID that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def error_answer(status: int, words: str, **headers: str) -> Answer:
    body = json.dumps({"error": words}).encode()
    return Answer(status, {"Content-Type": "application/json", **headers}, body)


def as_json(content: object) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())


@dataclass
class Commit:
    """A client's commit: its message, its parent, and the operation on each path."""

    message: str
    parent: str | None
    paths: dict[str, str] = field(default_factory=dict)


class WritableHub(Hub):
    """``commits`` are the commits of clients; ``objects`` are the large files, by SHA-256.

    ``faults`` has answers to requests by the beginning of their method and path; None breaks off
    the connection amid the body. ``signature`` is the query of upload addresses. ``meanwhile`` is
    called before a commit is processed. An upload sets ``reached``, and then waits for ``held``.
    """

    def __init__(self, storage: FileServer) -> None:
        self.objects: dict[str, bytes] = {}
        self.signature = ""
        self.commits: list[Commit] = []
        self.uploads: list[str] = []
        self.visibility: dict[str, str | None] = {}
        self.sent_to_storage: list[dict[str, str]] = []
        self.faults: dict[str, Answer | None] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        self.reached, self.held = threading.Event(), threading.Event()
        self.held.set()
        super().__init__(storage)

    def make(self, name: str, files: dict[str, bytes] | None = None) -> Repository:
        """Make a repository as the hub does, with some files."""
        made = self.repositories[name] = Repository({}, {})
        self.add(name, {".gitattributes": ATTRIBUTES, **(files or {})})
        return made

    def add(self, name: str, files: dict[str, bytes | None], branch: str = "main") -> str:
        """Commit files; None removes a file."""
        repository = self.repositories[name]
        parent = repository.branches.get(branch, "")
        content = {**repository.commits.get(parent, {}), **files}
        kept = {path: each for path, each in content.items() if each is not None}
        commit = hashlib.sha1(repr((parent, sorted(kept.items()))).encode()).hexdigest()
        repository.commits[commit] = kept
        repository.branches[branch] = commit
        return commit

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        """The files of a branch."""
        repository = self.repositories[name]
        return repository.commits[repository.branches[branch]]

    def is_large(self, content: bytes) -> bool:
        return hashlib.sha256(content).hexdigest() in self.objects

    # --- reading ---

    def answer(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        route = urlsplit(path).path
        for start, fault in self.faults.items():
            if f"{method} {route}".startswith(start) and fault is not None:
                return fault
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", route)
        if match is None and route.startswith("/api/"):
            return Answer(404)
        if match is None:
            return super().answer(method, path, headers)
        self.requests.append(f"{method} {path}")
        name, kind, revision = match[1], match[2], unquote(match[3] or "main")
        refused = self.refused(name, headers)
        if refused is not None:
            return refused
        repository = self.repositories[name]
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return error_answer(
                404, f"Invalid rev id: {revision}", **{"X-Error-Code": "RevisionNotFound"}
            )
        if kind != "tree":
            return as_json({"id": name, "sha": commit, "private": False, "siblings": []})
        return as_json(self.tree(repository.commits[commit]))

    def refused(self, name: str, headers: dict[str, str]) -> Answer | None:
        sent = headers.get("authorization", headers.get("Authorization", ""))
        if sent not in ("", f"Bearer {TOKEN}", f"Bearer {READS_ONLY}"):
            words = "Invalid credentials in Authorization header"
            return error_answer(401, words, **{"X-Error-Message": words})
        if name not in self.repositories:
            return error_answer(
                404 if sent else 401, "not found", **{"X-Error-Code": "RepoNotFound"}
            )
        return None

    def tree(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        folders = {path.rpartition("/")[0] for path in files if "/" in path}
        found: list[dict[str, Any]] = [
            {"type": "directory", "path": each, "oid": "0" * 40, "size": 0} for each in folders
        ]
        for path, content in files.items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
            if self.is_large(content):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
            found.append(entry)
        return found

    # --- writing ---

    def take(self, request: BaseHTTPRequestHandler) -> Answer | None:
        route = urlsplit(request.path).path
        self.requests.append(f"{request.command} {request.path}")
        length = int(request.headers["Content-Length"])
        for start, fault in self.faults.items():
            if f"{request.command} {route}".startswith(start):
                request.rfile.read(length if fault else length // 2)
                return fault
        body = request.rfile.read(length)
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.command == "PUT":
            return self.store(route.removeprefix("/storage/"), body, headers)
        if route == "/api/validate-yaml":
            return self.validate(json.loads(body)["content"])
        if headers.get("authorization") == f"Bearer {READS_ONLY}":
            words = "you must use a write token to do this"
            return error_answer(403, words, **{"X-Error-Message": words})
        if route == "/api/repos/create":
            return self.create(json.loads(body), headers)
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/([^/]+)", route)
        batch = re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", route)
        found = match or batch
        if found is None:
            return Answer(404)
        refused = self.refused(found[1], headers)
        if refused is not None:
            return refused
        if batch:
            return self.offer(json.loads(body)["objects"])
        assert match is not None
        name, kind, branch = match[1], match[2], unquote(match[3])
        if kind == "preupload":
            return self.modes(name, branch, json.loads(body)["files"])
        if kind == "branch":
            branches = self.repositories[name].branches
            branches[branch] = branches["main"]
            return as_json({})
        return self.commit(name, branch, [json.loads(line) for line in body.splitlines()])

    def create(self, asked: dict[str, Any], headers: dict[str, str]) -> Answer:
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return error_answer(401, "not logged in")
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.repositories:
            return error_answer(409, "You already created this model repo")
        self.make(name)
        self.visibility[name] = asked.get("visibility")
        return as_json({"url": f"{self.address}/{name}"})

    def validate(self, content: str) -> Answer:
        card = yaml.safe_load(content.split("---\n")[1])
        if card.get("license") not in LICENSES:
            errors = [{"message": f'"license" must be one of {sorted(LICENSES)}'}]
            body = json.dumps({"errors": errors, "warnings": []}).encode()
            return Answer(400, {"Content-Type": "application/json"}, body)
        return as_json({"errors": [], "warnings": []})

    def modes(self, name: str, branch: str, asked: list[dict[str, Any]]) -> Answer:
        """How to send each file: as a large file, by its name, size or first bytes, or inline."""
        there = self.files(name, branch)
        ignored = there.get(".gitignore", b"").decode().split()
        entries = []
        for each in asked:
            path, content = each["path"], there.get(each["path"])
            large = (
                path.endswith(".onnx")
                or each["size"] > 10 << 20
                or b"\0" in base64.b64decode(each["sample"])
            )
            known = None
            if content is not None:
                sha256 = hashlib.sha256(content).hexdigest()
                known = sha256 if self.is_large(content) else blob_id(content)
            entries.append(
                {
                    "path": path,
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": any(fnmatch.fnmatch(path, each) for each in ignored),
                    "oid": known,
                }
            )
        return as_json({"files": entries})

    def offer(self, objects: list[dict[str, Any]]) -> Answer:
        host = self.address.replace("127.0.0.1", "localhost")
        for each in objects:
            if each["oid"] not in self.objects:
                each["actions"] = {
                    "upload": {"href": f"{host}/storage/{each['oid']}{self.signature}"}
                }
        return as_json({"transfer": "basic", "objects": objects})

    def store(self, sha256: str, content: bytes, headers: dict[str, str]) -> Answer:
        self.reached.set()
        self.held.wait()
        self.sent_to_storage.append(headers)
        if hashlib.sha256(content).hexdigest() != sha256:
            return error_answer(400, "the content has another hash")
        self.objects[sha256] = content
        self.uploads.append(sha256)
        return Answer(200)

    def commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> Answer:
        self.meanwhile()
        header, *operations = ((line["key"], line["value"]) for line in lines)
        parent = header[1].get("parentCommit")
        if parent is not None and parent != self.repositories[name].branches[branch]:
            return error_answer(412, "A commit has happened since. Please refresh and try again.")
        files: dict[str, bytes | None] = {}
        for key, value in operations:
            if key == "lfsFile":
                if value["oid"] not in self.objects:
                    return error_answer(400, f"{value['path']}: no object {value['oid']}")
                files[value["path"]] = self.objects[value["oid"]]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert key == "deletedFile", key
                files[value["path"]] = None
        made = self.add(name, files, branch)
        verbs = {value["path"]: key for key, value in operations}
        self.commits.append(Commit(header[1]["summary"], parent, verbs))
        return as_json({"commitUrl": f"{self.address}/{name}/commit/{made}", "commitOid": made})
