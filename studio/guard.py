"""What the server refuses before Gradio sees it: links to fetch, routes that the page does not use, large uploads."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
# Gradio's routes that fetch from other machines, call components' functions, run ffmpeg, or keep what a visitor sends.
UNUSED = ("proxy=", "component_server", "process_recording", "deep_link", "deep-link", "vibe", "stream/", "custom_comp")
FILE = "file="
MOST_REQUEST = 210 * 10**6  # bytes of an upload: as many as are measured together, and the form around them
MOST_KEPT = 2 * 10**9  # bytes of all uploads and pictures that wait to be removed


def guarded(app: Application, own_folder: Path) -> Application:
    """The application behind the guard, as Starlette's `Middleware` makes it.

    Args:
        own_folder: which holds the uploads; while it is too full, none are taken.
    """

    async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (refusal := refusal_of(scope, own_folder)):
            status, text = refusal
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": text.encode()})
        else:
            await app(scope, receive, send)

    return answer


def refusal_of(scope: dict[str, Any], own_folder: Path) -> tuple[int, str] | None:
    """Status and text with which a request is refused; None where it is let through."""
    path = unquote(scope["path"])
    route = path.removeprefix("/gradio_api").lstrip("/")
    if route.startswith(UNUSED):
        return 404, "this page has no such part"
    if route.startswith(FILE) and "://" in route:
        return 403, "links are not opened here"
    if scope["method"] == "POST" and route == "upload":
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "an upload must say how long it is"
        if int(length) > MOST_REQUEST:
            return 413, f"at most {MOST_REQUEST // 10**6} MB are taken together"
        if folder_bytes(own_folder) + int(length) > MOST_KEPT:
            return 507, "there is no room for more uploads; try again in an hour"
    return None


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:  # removed meanwhile
            continue
    return total
