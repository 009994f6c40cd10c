"""The peer that does nothing: the smallest Starlette application, on ingress' uvicorn settings.

In: any delivery, which it does not read. Out: 200. What it takes is the server's and the
framework's share of any handler's time.
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def receive(request: Request) -> Response:  # noqa: ARG001 - it reads nothing
    """Answer 200."""
    return Response(b'{"received": true}', media_type="application/json")


app = Starlette(routes=[Route("/webhooks/plexy", receive, methods=["POST"])])
