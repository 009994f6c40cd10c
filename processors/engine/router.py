"""Routes a request to the worker that has the key's partition.

Faust's own router decodes the answer as text and drops the answer's headers. This router returns
the status, the body, the content type and the caching headers unchanged. It answers 503 if the
other worker can't be reached.

The other worker receives only those headers of the request that the views read. If that worker
received a ``Content-Length`` but no body, it would read the connection's next request as the body.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import aiohttp
from faust.app.router import Router as FaustRouter
from faust.exceptions import SameNode
from faust.types import TP
from faust.types.core import K
from faust.types.web import Request, Response, Web
from yarl import URL

from processors.engine.internals import owner_of
from runtime.kafka.partitions import partition_for
from runtime.problems import MEDIA_TYPE, Problem

ANSWER_WITHIN_S: Final = 5.0
"""A worker that takes longer to answer counts as unreachable."""

# This header marks a forwarded request, which is not forwarded again.
_FORWARDED: Final = "Ledger-Forwarded"
_ASKED_WITH: Final = ("Authorization", "If-None-Match")
_ANSWERED_WITH: Final = (
    "Content-Type",
    "Content-Disposition",
    "ETag",
    "Cache-Control",
    "Retry-After",
    "WWW-Authenticate",
)


def worker_client() -> aiohttp.ClientSession:
    """Return the HTTP client for other workers; Faust's setting ``HttpClient`` names this function.

    A request that waits for an event occupies a connection. With aiohttp's limit of 100
    connections, the waiting requests could block all other requests, so there is no limit. Workers
    never compress an answer, so the client never decompresses an answer. If it did, a few bytes
    from a server that pretends to be a worker could expand to gigabytes.
    """
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(connector=connector, auto_decompress=False)


class Router(FaustRouter):
    """The router that Faust's setting ``Router`` names."""

    async def route_req(
        self, table_name: str, key: K, _web: Web, request: Request, more_s: float = 0.0
    ) -> Response:
        """Return the answer of the worker that has ``key``.

        Raise ``SameNode`` if this worker has ``key``. The answer may take ``ANSWER_WITHIN_S`` plus
        ``more_s``.
        """
        try:
            destination = self.key_store(table_name, key)
        except KeyError:
            return _unavailable("no worker has this key's partition yet")
        if destination.origin() == self.app.conf.canonical_url.origin():
            raise SameNode
        if _FORWARDED in request.headers:
            return _unavailable("the workers do not agree yet which one has this key")
        try:
            return await self._forward(destination, request, ANSWER_WITHIN_S + more_s)
        except (aiohttp.ClientError, TimeoutError):
            return _unavailable(f"the worker at {destination} has this key and does not answer")

    def key_store(self, table_name: str, key: K) -> URL:
        """Return the address of the key's worker; raise ``KeyError`` if no worker has the key."""
        changelog = self.app.tables[table_name].changelog_topic
        encoded, _ = changelog.prepare_key(key, None)
        partition = partition_for(encoded, self.app.conf.topic_partitions)
        return URL(owner_of(self.app, TP(changelog.get_topic_name(), partition)))

    async def _forward(self, destination: URL, request: Any, within_s: float) -> Response:
        path = request.rel_url.raw_path_qs
        async with self.app.http_client.request(
            request.method,
            URL(f"{destination.origin()}{path}", encoded=True),
            headers=_only(_ASKED_WITH, request.headers) | {_FORWARDED: "1"},
            timeout=aiohttp.ClientTimeout(total=within_s),
            allow_redirects=False,
        ) as answer:
            return aiohttp.web.Response(  # type: ignore[return-value]
                body=await answer.read(),
                status=answer.status,
                headers=_only(_ANSWERED_WITH, answer.headers),
            )


def _only(names: Iterable[str], headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


def _unavailable(detail: str) -> Response:
    problem = Problem(status=503, code="unavailable", detail=detail)
    return aiohttp.web.Response(  # type: ignore[return-value]
        body=problem.encode(), status=503, content_type=MEDIA_TYPE, headers={"Retry-After": "2"}
    )
