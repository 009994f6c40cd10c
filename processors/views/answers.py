"""The answers of the views: JSON with an entity tag, and problem documents (RFC 9457).

A view may raise a ``ProblemError`` at any depth; the middleware in ``access`` answers with the
error's document.
"""

from hashlib import blake2b
from typing import Any

from aiohttp import web

from runtime.problems import MEDIA_TYPE, Problem


class ProblemError(Exception):
    """Ends a request with a problem document."""

    def __init__(self, status: int, code: str, detail: str, field: str = "") -> None:
        super().__init__(detail)
        self.problem = Problem(status=status, code=code, detail=detail, field=field)


def json_answer(body: bytes, **headers: str) -> web.Response:
    """Return a JSON document; ``Some_Name`` becomes the header ``Some-Name``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(body=body, content_type="application/json", headers=named)


def tagged_answer(request: Any, body: bytes, version: int) -> web.Response:
    """Return a document, or 304 if the client already has it (``If-None-Match``).

    The tag consists of the version and a digest. The version is the number of facts. This number
    may stay the same if a payment leaves an order and a different payment joins.
    """
    tag = f'"{version}-{blake2b(body, digest_size=6).hexdigest()}"'
    # The client must revalidate a cached copy each time, since the next event may have arrived.
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = request.headers.get("If-None-Match", "")
    if known.strip() == "*" or tag in [
        each.strip().removeprefix("W/") for each in known.split(",")
    ]:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type="application/json", headers=headers)


def problem_answer(problem: Problem, headers: dict[str, str] | None = None) -> web.Response:
    """Return a problem document; for a 503, the header ``Retry-After`` says when to ask again."""
    if problem.status == 503:  # noqa: PLR2004
        headers = {"Retry-After": "2", **(headers or {})}
    return web.Response(
        body=problem.encode(), status=problem.status, content_type=MEDIA_TYPE, headers=headers
    )


def not_found(kind: str, identifier: str) -> ProblemError:
    """Return the error for an order, payment or event that does not exist."""
    return ProblemError(404, f"{kind}_not_found", f"no {kind} {identifier!r:.80} is in the ledger")
