"""Keep requests that aiohttp can't parse out of answers and logs.

aiohttp quotes the bytes that it can't parse. These bytes may be a token: if the end of a request is
misread, aiohttp parses the connection's next request from somewhere in the middle.

Such a request is answered with a 400 that names the kind of error, after which aiohttp closes the
connection; nothing is logged. aiohttp handles all other errors.
"""

from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from processors.views.answers import problem_answer
from runtime import internals
from runtime.problems import Problem

internals.check()

_UNREADABLE: Final = (HttpProcessingError, web.RequestPayloadError)

_handle_error = web.RequestHandler.handle_error
_log_exception = web.RequestHandler.log_exception


def hide_unreadable_requests() -> None:
    """Change all aiohttp servers of this process; a second call changes nothing."""
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
