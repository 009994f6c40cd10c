"""The middlewares of all views check the host and the token, and turn errors into documents.

If a token is configured, a request that does not have the token can read only the probes and the
page's files, since these have no data. If no token is configured, every route is open, but only to
requests whose ``Host`` is a loopback name: see ``runtime.access``. The text of an unexpected error
is never shown.

By default, aiohttp quotes the bytes that it can't parse. These bytes may contain a token: if
aiohttp misreads where a request ends, it begins to parse in the middle of the next request. The
views answer such a request with a 400 that names only the kind of error, and log nothing. Then
aiohttp closes the connection. aiohttp itself handles all other errors outside the middlewares.
"""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from processors.views.answers import ProblemError, problem_answer
from processors.views.page import OPEN_PAGES
from runtime import internals
from runtime.access import Token, wrong_host, wrong_token
from runtime.kafka.topic_reader import LogUnreadableError
from runtime.problems import Problem

internals.check()

log = structlog.get_logger(__name__)

# These are canonical paths of routes. The check compares them with the route that the router
# matched, not with the request's path, so a crafted path can't make another route open.
_OPEN_ROUTES: Final = frozenset({"/healthz", "/readyz", *OPEN_PAGES})

_UNREADABLE: Final = (HttpProcessingError, web.RequestPayloadError)

_handle_error = web.RequestHandler.handle_error
_log_exception = web.RequestHandler.log_exception

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def middlewares(token: Token | None) -> list[Any]:
    """Return the aiohttp middlewares: problem documents for errors, then access control."""
    return [_problems, _access(token)]


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with a problem document; an unexpected error is logged, not shown."""
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


def _access(token: Token | None) -> Any:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the host; if the route is not open, check the bearer token too."""
        problem = wrong_host(request.headers.getall("Host", []), token)
        route = request.match_info.route.resource
        if problem is None and (route is None or route.canonical not in _OPEN_ROUTES):
            problem = wrong_token(request.headers.get("Authorization", ""), token)
        if problem is None:
            return await handler(request)
        headers = (
            {"WWW-Authenticate": "Bearer"} if problem.status == HTTPStatus.UNAUTHORIZED else {}
        )
        return problem_answer(problem, headers)

    return check


def hide_unreadable_requests() -> None:
    """Keep this process's aiohttp servers from quoting bytes that they can't parse.

    A second call changes nothing.
    """
    web.RequestHandler.handle_error = _answer_without_quoting  # type: ignore[method-assign]
    web.RequestHandler.log_exception = _log_other_errors  # type: ignore[method-assign]


def _answer_without_quoting(
    self: web.RequestHandler,
    request: web.BaseRequest,
    status: int = 500,
    exc: BaseException | None = None,
    message: str | None = None,
) -> web.StreamResponse:
    if not isinstance(exc, _UNREADABLE):
        return _handle_error(self, request, status, exc, message)
    detail = f"this server can't read the request as HTTP ({type(exc).__name__})"
    answer = problem_answer(Problem(status=400, code="malformed_request", detail=detail))
    answer.force_close()
    return answer


def _log_other_errors(self: web.RequestHandler, *args: Any, **kw: Any) -> None:
    if not isinstance(kw.get("exc_info"), _UNREADABLE):
        _log_exception(self, *args, **kw)
