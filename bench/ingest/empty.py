"""Defines the empty handler: the smallest Starlette app, with the uvicorn settings of ingress.

The handler answers every delivery with 200, and does not read the delivery. So its measurement
shows the time that the HTTP server and the framework take for every handler.
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def receive(request: Request) -> Response:  # noqa: ARG001 - the peer reads nothing
    """Answer 200."""
    return Response(b'{"received": true}', media_type="application/json")


app = Starlette(routes=[Route("/webhooks/plexy", receive, methods=["POST"])])
