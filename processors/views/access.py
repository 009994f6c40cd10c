"""Who may read, and what becomes of errors: the two middlewares of all views.

In: requests. Out: the view's answer, or a problem document. Never: an answer without the bearer
token where one is configured, but for the probes and the page's files, which hold no data; and
never an unexpected error's text.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiohttp import web

from processors.topic_reader import LogUnreadableError
from processors.views.answers import ProblemError, problem_answer
from processors.views.page import OPEN_PAGES
from runtime.problems import Problem
from runtime.settings import Secret

log = structlog.get_logger(__name__)

# As the router calls them: what is asked for never decides by itself that it is open.
_OPEN_ROUTES: Final = frozenset({"/healthz", "/readyz", *OPEN_PAGES})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def middlewares(token: Secret | None) -> list[Any]:
    """Return the aiohttp middlewares: problem documents for errors, then the token."""
    return [_problems, _authorization(token)]


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with a problem document; an unexpected one is logged, not shown."""
    try:
        return await handler(request)
    except ProblemError as error:
        return problem_answer(error.problem)
    except LogUnreadableError as error:
        return problem_answer(Problem(status=error.status, code=error.code, detail=str(error)))
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004
            raise
        code = "_".join(error.reason.lower().split())
        detail = f"{request.method} {request.path}: {error.reason}"
        allow = error.headers.get("Allow")
        problem = Problem(status=error.status, code=code, detail=detail)
        return problem_answer(problem, {"Allow": allow} if allow else None)
    except Exception:
        log.exception("a view failed", path=request.path)
        detail = "the view failed; the worker's log says why"
        return problem_answer(Problem(status=500, code="internal_error", detail=detail))


def _authorization(token: Secret | None) -> Any:
    expected = f"Bearer {token.reveal()}".encode() if token else None

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Ask for the bearer token, compared in constant time, but where it is open."""
        route = request.match_info.route.resource
        if expected is None or (route is not None and route.canonical in _OPEN_ROUTES):
            return await handler(request)
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, expected):
            return await handler(request)
        problem = Problem(
            status=401, code="unauthorized", detail="expected `Authorization: Bearer …`"
        )
        return problem_answer(problem, {"WWW-Authenticate": "Bearer"})

    return check
