"""Compares every order with the oracle, over HTTP, as anybody may who has the token.

In: what must come of each order, and the addresses of the views. Out: the orders that differ, each
with what was expected and what came. Never: Kafka, or a wait without a bound.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from cli.demo.verdict import compare
from cli.errors import ViewError
from cli.send import problem_code
from cli.simulate.oracle import Order

_POLL_S: Final = 0.25
_ANSWER_WITHIN_S: Final = 10.0
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404

Foretold = Mapping[str, Order | None]
Lines = tuple[str, ...]
"""What differs in an order, a line for each place of its document; none where all is right."""

_NOT_ASKED: Final = ("it was not asked for: the time was over",)


class Unreadable(msgspec.Struct, frozen=True):
    """No worker says how the order stands; ``reason`` is the last one's."""

    reason: str


class Difference(msgspec.Struct, frozen=True):
    """An order that is not as expected."""

    order_id: str
    lines: Lines


class Views:
    """Reads orders from whichever of the workers answers."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: tuple[str, ...], token: str | None
    ) -> None:
        self._session = session
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._preferred = 0

    async def read(self, order_id: str) -> Order | Unreadable | None:
        """Ask one worker, and if it does not know, the next; ``None`` where there is no order."""
        found: Order | Unreadable | None = Unreadable("nobody was asked")
        for _ in self._urls:
            found = await self._ask(self._urls[self._preferred % len(self._urls)], order_id)
            if not isinstance(found, Unreadable):
                break
            self._preferred += 1
        return found

    async def _ask(self, url: str, order_id: str) -> Order | Unreadable | None:
        address = URL(f"{url.rstrip('/')}/orders/{quote(order_id, safe='')}", encoded=True)
        try:
            async with self._session.get(address, headers=self._headers) as response:
                status, content = response.status, await response.read()
        except TimeoutError:
            return Unreadable(f"{url}: timeout")
        except (aiohttp.ClientError, OSError) as error:
            return Unreadable(f"{url}: {error or type(error).__name__}")
        return _order(url, status, content)


class Check:
    """One check; ``settled`` of ``total`` orders were found as expected at the last look."""

    def __init__(self, foretold: Foretold, concurrency: int) -> None:
        self.total = len(foretold)
        self.settled = 0
        self._foretold = foretold
        self._concurrency = concurrency
        self._last: dict[str, Lines] = {}

    async def run(
        self, urls: tuple[str, ...], token: str | None, within_s: float
    ) -> list[Difference]:
        """Look until all is as foretold, for so many seconds; return what differs then."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_WITHIN_S)
        connector = aiohttp.TCPConnector(limit=self._concurrency)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            views = Views(session, urls, token)
            found = await self._settle(views, asyncio.get_running_loop().time() + within_s)
        return [Difference(name, lines) for name, lines in sorted(found.items())]

    async def _settle(self, views: Views, deadline_s: float) -> dict[str, Lines]:
        """Ask again for what differs; at last for all orders: one may have changed meanwhile."""
        clock = asyncio.get_running_loop().time
        while found := await self._look(views, self._foretold, deadline_s):
            while found:
                if clock() >= deadline_s:
                    return found
                await asyncio.sleep(_POLL_S)
                again = {name: self._foretold[name] for name in found}
                found = await self._look(views, again, deadline_s)
        return {}

    async def _look(self, views: Views, foretold: Foretold, deadline_s: float) -> dict[str, Lines]:
        """Compare orders, several at a time; after the deadline what was found before stands."""
        self.settled = self.total - len(foretold)
        found: dict[str, Lines] = {}
        orders = iter(foretold.items())
        looks = [self._compare(views, orders, found, deadline_s) for _ in range(self._concurrency)]
        # The first error ends the check; what the others still do ends with the session.
        await asyncio.gather(*looks)
        return found

    async def _compare(
        self,
        views: Views,
        orders: Iterator[tuple[str, Order | None]],
        found: dict[str, Lines],
        deadline_s: float,
    ) -> None:
        clock = asyncio.get_running_loop().time
        for order_id, expected in orders:
            if clock() <= deadline_s:
                self._last[order_id] = differences(expected, await views.read(order_id))
            if lines := self._last.get(order_id, _NOT_ASKED):
                found[order_id] = lines
            else:
                self.settled += 1


def differences(expected: Order | None, got: Order | Unreadable | None) -> Lines:
    """Return a line for each place where two orders differ.

    >>> differences(None, Unreadable("timeout"))
    ('it could not be read: timeout',)
    """
    if isinstance(got, Unreadable):
        return (f"it could not be read: {got.reason}",)
    if expected == got:
        return ()
    if expected is None or got is None:
        wanted, came = ("nothing" if order is None else order.status for order in (expected, got))
        return (f"expected {wanted}, got {came}",)
    return tuple(compare(msgspec.to_builtins(expected), msgspec.to_builtins(got)))


def _order(url: str, status: int, content: bytes) -> Order | Unreadable | None:
    # Something else than our views would not find it either.
    if status == _NOT_FOUND and problem_code(content) == "order_not_found":
        return None
    if status == _UNAUTHORIZED:
        raise ViewError(f"{url} refuses the token: set LEDGER_API_TOKEN to the worker's")
    if status != _OK:
        return Unreadable(f"{url}: {status} {content.decode(errors='replace'):.200}")
    try:
        return msgspec.json.decode(content, type=Order)
    except msgspec.DecodeError as error:
        return Unreadable(f"{url}: no order document: {error}")
