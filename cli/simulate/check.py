"""Compares every order in the workers' views with the oracle, over HTTP.

The check takes the expected orders and the addresses of the views. It returns each order that
differs, with the expected and the received values. Every wait has a time limit.
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
from cli.simulate.oracle import CheckedOrder

_POLL_S: Final = 0.25
_ANSWER_WITHIN_S: Final = 10.0
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404

Foretold = Mapping[str, CheckedOrder | None]
Lines = tuple[str, ...]
"""The differences of one order, one line for each field; empty if the order is as expected."""

_NOT_READ: Final = ("it was not read before the time limit",)


class Unreadable(msgspec.Struct, frozen=True):
    """No worker returned the order; ``reason`` is the failure of the worker that was asked last."""

    reason: str


class DifferingOrder(msgspec.Struct, frozen=True):
    """An order that is not as expected, with its differences."""

    order_id: str
    lines: Lines


class Views:
    """Reads orders from the first worker that answers."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: tuple[str, ...], token: str | None
    ) -> None:
        self._session = session
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._preferred = 0

    async def read(self, order_id: str) -> CheckedOrder | Unreadable | None:
        """Ask the workers in turn until a worker answers; ``None`` if there is no such order."""
        found: CheckedOrder | Unreadable | None = Unreadable("no worker was asked")
        for _ in self._urls:
            found = await self._ask(self._urls[self._preferred % len(self._urls)], order_id)
            if not isinstance(found, Unreadable):
                break
            self._preferred += 1
        return found

    async def _ask(self, url: str, order_id: str) -> CheckedOrder | Unreadable | None:
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
    """One check of ``total`` orders.

    ``settled`` is the number of orders that were as expected when they were last read.
    """

    def __init__(self, foretold: Foretold, concurrency: int) -> None:
        self.total = len(foretold)
        self.settled = 0
        self._foretold = foretold
        self._concurrency = concurrency
        self._last: dict[str, Lines] = {}

    async def run(
        self, urls: tuple[str, ...], token: str | None, within_s: float
    ) -> list[DifferingOrder]:
        """Read until all orders are as expected, or until ``within_s`` seconds have passed.

        Return the orders that still differ.
        """
        timeout = aiohttp.ClientTimeout(total=_ANSWER_WITHIN_S)
        connector = aiohttp.TCPConnector(limit=self._concurrency)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            views = Views(session, urls, token)
            found = await self._settle(views, asyncio.get_running_loop().time() + within_s)
        return [DifferingOrder(name, lines) for name, lines in sorted(found.items())]

    async def _settle(self, views: Views, deadline_s: float) -> dict[str, Lines]:
        """Read all orders, and read the differing orders again until no order differs.

        Then read all orders again, because an order that was as expected may have changed since.
        Return the orders that differ at the deadline.
        """
        clock = asyncio.get_running_loop().time
        while found := await self._scan(views, self._foretold, deadline_s):
            while found:
                if clock() >= deadline_s:
                    return found
                await asyncio.sleep(_POLL_S)
                again = {name: self._foretold[name] for name in found}
                found = await self._scan(views, again, deadline_s)
        return {}

    async def _scan(self, views: Views, foretold: Foretold, deadline_s: float) -> dict[str, Lines]:
        """Compare several orders at a time; return the differences.

        After the deadline, orders are no longer read; their last known differences are returned.
        """
        self.settled = self.total - len(foretold)
        found: dict[str, Lines] = {}
        orders = iter(foretold.items())
        # The first error ends the check. The session is then closed, which ends the other readers.
        await asyncio.gather(
            *(self._compare(views, orders, found, deadline_s) for _ in range(self._concurrency))
        )
        return found

    async def _compare(
        self,
        views: Views,
        orders: Iterator[tuple[str, CheckedOrder | None]],
        found: dict[str, Lines],
        deadline_s: float,
    ) -> None:
        clock = asyncio.get_running_loop().time
        for order_id, expected in orders:
            if clock() <= deadline_s:
                self._last[order_id] = differences(expected, await views.read(order_id))
            if lines := self._last.get(order_id, _NOT_READ):
                found[order_id] = lines
            else:
                self.settled += 1


def differences(expected: CheckedOrder | None, got: CheckedOrder | Unreadable | None) -> Lines:
    """Return a line for each field in which two orders differ.

    >>> differences(None, Unreadable("timeout"))
    ('it could not be read: timeout',)
    """
    if isinstance(got, Unreadable):
        return (f"it could not be read: {got.reason}",)
    if expected == got:
        return ()
    if expected is None or got is None:
        statuses = ("nothing" if order is None else order.status for order in (expected, got))
        return ("expected {}, got {}".format(*statuses),)
    return tuple(compare(msgspec.to_builtins(expected), msgspec.to_builtins(got)))


def _order(url: str, status: int, content: bytes) -> CheckedOrder | Unreadable | None:
    # A server that is not a worker may also answer 404. Only the ledger's views send this problem
    # code with it.
    if status == _NOT_FOUND and problem_code(content) == "order_not_found":
        return None
    if status == _UNAUTHORIZED:
        raise ViewError(f"{url} refuses the token: set LEDGER_API_TOKEN to the worker's token")
    if status != _OK:
        return Unreadable(f"{url}: {status} {content.decode(errors='replace'):.200}")
    try:
        return msgspec.json.decode(content, type=CheckedOrder)
    except msgspec.DecodeError as error:
        return Unreadable(f"{url}: no order document: {error}")
