"""Another worker's answer is returned unchanged, and an unreachable worker causes a 503.

The worker under test has a real router; the other worker is a small web server.
"""

import asyncio
import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import unused_port
from faust.exceptions import SameNode
from yarl import URL

from processors.engine import router
from processors.settings import WorkerSettings
from processors.topology import LedgerApp, new_app
from processors.worker import Worker
from runtime.kafka.partitions import partition_for
from tests.fakes import until
from tests.processors.engine.routing import KEY, PARTITIONS, assign, never_answers, served


class Answer(NamedTuple):
    """An answer, as the client received it."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: LedgerApp, path: str = "/orders/1", more_s: float = 0.0, **headers: str
) -> Answer:
    """Send a request to a server that routes requests as the worker's views do."""

    async def route(incoming: web.Request) -> web.StreamResponse:
        return await app.router.route_req("orders", KEY, None, incoming, more_s)

    async with served(route) as here, ClientSession() as client:
        url = URL(f"{here.origin()}{path}", encoded=True)
        async with client.get(url, headers=headers, allow_redirects=False) as answer:
            return Answer(answer.status, answer.headers, await answer.read())


async def test_the_owner_of_a_key_is_found_from_the_changelog_partition_of_the_key(app):
    keys = [b"key %d" % n for n in range(40)]
    for key in keys:
        assign(app, f"http://worker-{partition_for(key, PARTITIONS)}:80", key)
    for key in keys:
        found = app.router.key_store("orders", key)
        assert found == URL(f"http://worker-{partition_for(key, PARTITIONS)}:80")


async def test_a_key_without_an_owner_causes_a_503_that_gives_the_reason(app):
    answer = await ask(app)
    assert answer.status == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"] == "2"
    assert answer.json["detail"] == "no worker has this key's partition yet"


async def test_a_worker_asks_no_other_worker_for_a_key_of_its_own_partition(app):
    assign(app, app.conf.canonical_url)
    with pytest.raises(SameNode):
        await app.router.route_req("orders", KEY, None, None)


async def test_status_and_body_and_caching_headers_are_returned_unchanged(app):
    given = b'{"amount": "\xd1\x82"}\n'

    async def answers(_request: web.Request) -> web.Response:
        headers = {
            "Content-Type": "application/problem+json",
            "ETag": '"7"',
            "Cache-Control": "no-store",
            "Retry-After": "9",
            "WWW-Authenticate": "Bearer",
            "Set-Cookie": "a=b",
        }
        return web.Response(body=given, status=404, headers=headers)

    async with served(answers) as other:
        assign(app, other)
        answer = await ask(app)
    assert (answer.status, answer.body) == (404, given)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["ETag"] == '"7"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Retry-After"] == "9"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "Set-Cookie" not in answer.headers


async def test_the_other_worker_is_asked_for_the_same_path_with_the_same_token(app):
    asked = []

    async def answers(request: web.Request) -> web.Response:
        asked.append((request.raw_path, request.headers))
        return web.Response(text="{}")

    async with served(answers) as other:
        assign(app, other)
        path = "/orders/a%2Fb%20%25?x=%31"
        assert (await ask(app, path, Authorization="Bearer t")).status == 200
    [(raw_path, headers)] = asked
    assert raw_path.startswith("/orders/a%2Fb%20%25?x=")
    assert headers["Authorization"] == "Bearer t"
    assert headers["Host"] == f"{other.host}:{other.port}"


async def test_only_headers_that_the_views_read_are_sent_to_the_other_worker(app):
    asked = []

    async def answers(request: web.Request) -> web.Response:
        asked.append(request.headers)
        return web.Response(text="{}")

    given = {
        "Authorization": "Bearer t",
        "If-None-Match": '"7"',
        "Content-Length": "0",
        "Cookie": "a=b",
        "Connection": "close",
        "X-Forwarded-For": "10.0.0.1",
    }
    async with served(answers) as other:
        assign(app, other)
        assert (await ask(app, **given)).status == 200
    [headers] = asked
    assert {name: headers.get(name) for name in given} == dict.fromkeys(given) | {
        "Authorization": "Bearer t",
        "If-None-Match": '"7"',
    }


async def test_an_answer_with_a_content_encoding_is_not_decompressed(app):
    packed = zlib.compress(bytes(1_000_000))

    async def answers(_request: web.Request) -> web.Response:
        return web.Response(body=packed, headers={"Content-Encoding": "deflate"})

    async with served(answers) as other:
        assign(app, other)
        answer = await ask(app)
    assert answer.body == packed
    assert "Content-Encoding" not in answer.headers


async def test_a_redirect_is_returned_as_an_answer_and_is_not_followed(app):
    async def answers(_request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with served(answers) as other:
        assign(app, other)
        assert (await ask(app)).status == 302


async def test_an_unreachable_worker_causes_a_503_that_names_the_worker(app):
    gone = f"http://127.0.0.1:{unused_port()}"
    assign(app, gone)
    answer = await ask(app)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    problem = answer.json
    assert problem["code"] == "unavailable"
    assert gone in problem["detail"]


async def test_a_worker_that_does_not_answer_within_the_limit_causes_a_503(app, monkeypatch):
    monkeypatch.setattr(router, "ANSWER_WITHIN_S", 0.05)

    async with served(never_answers) as other:
        assign(app, other)
        answer = await ask(app)
    assert answer.status == 503
    assert answer.json["code"] == "unavailable"


async def test_a_view_that_needs_more_time_has_a_longer_time_limit(app, monkeypatch):
    monkeypatch.setattr(router, "ANSWER_WITHIN_S", 0.0001)

    async def answers(_request: web.Request) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response(text="{}")

    async with served(answers) as other:
        assign(app, other)
        assert (await ask(app)).status == 503
        assert (await ask(app, more_s=30)).status == 200


async def test_more_requests_than_aiohttps_default_limit_may_wait_at_another_worker(tmp_path):
    settings = WorkerSettings(data_dir=tmp_path, partitions=PARTITIONS, web_port=unused_port())
    app = new_app(settings, worker_class=Worker, middlewares=[])
    arrived, goes_on = 0, asyncio.Event()

    async def answers(_request: web.Request) -> web.Response:
        nonlocal arrived
        arrived += 1
        await goes_on.wait()
        return web.Response()

    async with served(answers) as other, app.http_client as client, asyncio.TaskGroup() as asking:
        for _ in range(150):
            asking.create_task(client.get(other))
        await until(lambda: arrived == 150)
        goes_on.set()
