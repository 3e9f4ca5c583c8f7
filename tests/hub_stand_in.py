"""A stand-in of the Hugging Face hub on the loopback: as much of its HTTP API as pushing and fetching a run asks for.

Written from what huggingface_hub 2.4 asks for, not against the hub itself. Every file is uploaded as a regular one, in
the commit: the hub's upload of large files (LFS, Xet) is not here. Each repository is a branch of its commits, each of
them all files.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN, USER = "hf_stand_in", "me"


class Hub(ThreadingHTTPServer):
    """Repositories by their ids, each a dict of commits (40 hex digits) to files, the last one being main."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.fetched: list[str] = []  # paths of files, in order
        self.broken = False  # answers 500 to every commit

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, repo: str) -> dict[str, bytes]:
        return list(self.repos[repo].values())[-1]

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        commits = self.repos.setdefault(repo, {})
        oid = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[oid] = files
        return oid


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def answer(self, body: object = b"", status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if path == "/":
            self.answer()
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            repo, kind, revision = match.groups()
            if found := self.commit_of(repo, revision or "main"):
                oid, files = found
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": blob(data)} for name, data in files.items()
                ]
                siblings = [{"rfilename": name} for name in files]
                self.answer(tree if kind == "tree" else {"id": repo, "sha": oid, "siblings": siblings})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, name = match.groups()
            if found := self.commit_of(repo, revision):
                oid, files = found
                if name not in files:
                    self.answer(status=404, X_Error_Code="EntryNotFound", X_Repo_Commit=oid)
                    return
                self.server.fetched += [name] if self.command == "GET" else []
                self.answer(files[name], ETag=f'"{blob(files[name])}"', X_Repo_Commit=oid)
        else:
            self.answer(status=404)

    def commit_of(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files; None where an error has been answered."""
        commits = self.server.repos.get(repo)
        if not commits or (repo in self.server.private and not self.has_token()):
            self.answer(status=404, X_Error_Code="RepoNotFound")
        elif revision != "main" and revision not in commits:
            self.answer(status=404, X_Error_Code="RevisionNotFound")
        else:
            oid = list(commits)[-1] if revision == "main" else revision
            return oid, commits[oid]
        return None

    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.has_token():
            self.answer({"error": "Invalid username or password."}, status=401)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or USER}/{asked['name']}"
            is_new = repo not in self.server.repos
            self.server.repos.setdefault(repo, {})
            if is_new and (asked.get("private") or asked.get("visibility") == "private"):
                self.server.private.add(repo)
            self.answer({"url": f"{self.server.endpoint}/{repo}"}, status=200 if is_new else 409)
        elif self.path == "/api/validate-yaml":
            self.answer({"warnings": [], "errors": []})
        elif match := re.match(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif (match := re.match(r"/api/models/([^/]+/[^/]+)/commit/main", self.path)) and not self.server.broken:
            lines = [json.loads(line) for line in body.splitlines()]
            added = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            repo = match[1]
            oid = self.server.commit(repo, {**(self.server.files(repo) if self.server.repos[repo] else {}), **added})
            self.answer({"commitUrl": f"{self.server.endpoint}/{repo}/commit/{oid}", "commitOid": oid})
        else:
            self.answer({"error": "Internal"}, status=500)


def blob(content: bytes) -> str:
    """The hash by which git knows a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextlib.contextmanager
def stand_in() -> Iterator[Hub]:
    """The stand-in, serving during the block."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()
