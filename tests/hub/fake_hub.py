"""
A Hub on this machine, for tests: repositories with commits, private ones, and accounts that may or may not write.

    with FakeHub() as hub:
        subprocess.run(..., env={"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", ...})

It answers what `huggingface_hub` asks for in `create_repo`, uploads of small files, and downloads; nothing is kept.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Tokens: who they are and whether they may write.
ACCOUNTS = {"writer": ("someone", True), "reader": ("someone", False)}


@dataclass
class Repository:
    """Its commits, first to last: an id and all files."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=lambda: [("0" * 40, {})])

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]


class FakeHub(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *args):
        pass

    # What is asked

    def do_POST(self):
        path, body = self._path(), self._body()
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/.+", path):
            paths = [each["path"] for each in json.loads(body)["files"]]
            return self._json({"files": [{"path": each, "uploadMode": "regular", "shouldIgnore": False} for each in paths]})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/.+", path):
            return self._commit(found[1], body)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        return self._json({"error": f"no route {path}"}, 404)

    def do_GET(self):
        path, (name, _) = self._path(), self._account()
        if path == "/api/whoami-v2":
            known = {"name": name, "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}}
            return self._json(known) if name else self._json({"error": "Invalid credentials"}, 401)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|resolve-revision|tree)/([^/]+))?(?:/.*)?", path):
            return self._describe(*found.groups())
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(*found.groups())
        return self._json({"error": f"no route {path}"}, 404)

    do_HEAD = do_GET  # noqa: N815

    # What is answered

    def _create(self, asked):
        owner, may_write = self._account()
        name = f"{asked.get('organization') or owner}/{asked['name'].split('/')[-1]}"
        if not may_write:
            return self._json({"error": f"You don't have the rights to create a model under the namespace {owner}"}, 403)
        if name in self.server.repositories:
            return self._json({"error": "exists", "url": f"{self.server.endpoint}/{name}"}, 409)
        self.server.repositories[name] = Repository(private=bool(asked.get("private")) or asked.get("visibility") == "private")
        return self._json({"url": f"{self.server.endpoint}/{name}", "name": name, "id": name})

    def _commit(self, name, body):
        if not self._account()[1]:
            return self._json({"error": "Forbidden: you need write access"}, 403)
        repository = self.server.repositories[name]
        files = dict(repository.files)
        for item in map(json.loads, body.splitlines()):
            if item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "deletedFile":
                files.pop(item["value"]["path"], None)
        number = f"{len(repository.commits)}{sorted(files.items())!r}"
        repository.commits.append((hashlib.sha1(number.encode()).hexdigest(), files))
        url = f"{self.server.endpoint}/{name}/commit/{repository.commits[-1][0]}"
        return self._json({"success": True, "commitOid": repository.commits[-1][0], "commitUrl": url, "pullRequestUrl": None})

    def _describe(self, name, what, revision):
        repository = self._readable(name)
        commit = None if repository is None else repository.at(revision or "main")
        if commit is None:
            return self._missing(repository)
        sha, files = commit
        if what == "tree":
            entries = [(path, len(content), hashlib.sha1(content).hexdigest()) for path, content in files.items()]
            return self._json([{"type": "file", "path": path, "size": size, "oid": oid} for path, size, oid in entries])
        siblings = [{"rfilename": path} for path in files]
        told = {"_id": "0" * 24, "id": name, "modelId": name, "sha": sha, "private": repository.private, "tags": []}
        return self._json({**told, "siblings": siblings})

    def _file(self, name, revision, path):
        repository = self._readable(name)
        commit = None if repository is None else repository.at(revision)
        if commit is None:
            return self._missing(repository)
        sha, files = commit
        if path not in files:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        return self._answer(200, files[path], {"ETag": etag, "X-Repo-Commit": sha})

    def _missing(self, repository):
        code = "RepoNotFound" if repository is None else "RevisionNotFound"
        return self._json({"error": code}, 401 if repository is None else 404, {"X-Error-Code": code})

    # Parts

    def _path(self) -> str:
        path = self.path.split("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        return path

    def _account(self) -> tuple[str | None, bool]:
        return ACCOUNTS.get(self.headers.get("Authorization", "").removeprefix("Bearer "), (None, False))

    def _readable(self, name: str) -> Repository | None:
        """What a stranger may not see does not exist, as on the Hub."""
        repository = self.server.repositories.get(name)
        return None if repository is not None and repository.private and self._account()[0] is None else repository

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, content, status: int = 200, headers: dict[str, str] | None = None):
        self._answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
