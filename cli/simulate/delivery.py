"""One attempt at a delivery, as Plexy makes it: a signed POST, and 30 s for any 2xx.

In: a delivery, and how to send. Out: what was answered, or why nothing was, as a value. Never: a
retry; ``simulation`` makes those, in their time.
"""

import time
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from cli.errors import WrongOptionError
from cli.run.supervisor import Backoff
from cli.send import Answer, problem_code, signed_headers
from cli.simulate.schedule import ScheduledDelivery
from ledger.signature import DEFAULT_TOLERANCE_S, SignedForm

# Plexy tells of no schedule but that it retries: doubled each time, and never given up.
_BACKOFF: Final = Backoff(first_s=1.0, longest_s=300.0)


class SenderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to send: where to, signed with what, how fast.

    Of several ``secrets`` each signs its share of the run, one after the other. ``rate_per_s`` is
    of first attempts, 0 for as fast as they are answered. ``time_scale`` stretches or shortens the
    waits between attempts, and nothing else.
    """

    url: str
    secrets: tuple[str, ...]
    form: SignedForm = SignedForm.EITHER
    tolerance_s: int = DEFAULT_TOLERANCE_S
    rate_per_s: float = 0.0
    time_scale: float = 1.0
    concurrency: int = 32
    answer_within_s: float = 30.0

    def __post_init__(self) -> None:
        # Found out here, it would otherwise be retried for ever.
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise WrongOptionError(
                f"--url: expected an address such as http://127.0.0.1:8000/webhooks/plexy, "
                f"got {self.url!r}"
            )

    def wait_s(self, failures: int) -> float:
        """Return how long to wait after so many failures of a delivery."""
        return _BACKOFF.delay_s(failures) * self.time_scale


class NoAnswer(msgspec.Struct, frozen=True):
    """Nobody answered, and nobody knows whether the delivery arrived."""

    reason: str


def headers(
    delivery: ScheduledDelivery, options: SenderOptions, *, secret: str, is_retry: bool
) -> dict[str, str]:
    """Sign an attempt by the signer's clock; at a retry that clock is right."""
    skew_s = 0.0 if is_retry else delivery.skew * options.tolerance_s
    form = options.form
    if form is SignedForm.EITHER:
        form = (SignedForm.BODY, SignedForm.TIMESTAMPED)[delivery.number % 2]
    return signed_headers(delivery.body, secret, at_s=time.time() + skew_s, form=form)


def client(options: SenderOptions) -> aiohttp.ClientSession:
    """Return a client that keeps its connections, as many as there are attempts at a time."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=options.concurrency),
        timeout=aiohttp.ClientTimeout(total=options.answer_within_s),
    )


async def post(
    session: aiohttp.ClientSession, url: str, body: bytes, signed: dict[str, str]
) -> Answer | NoAnswer:
    """Make one attempt; every failure of the network's is a value."""
    try:
        async with session.post(url, data=body, headers=signed, allow_redirects=False) as response:
            content = await response.read()
    except TimeoutError:
        return NoAnswer("timeout")
    except (aiohttp.ClientError, OSError) as error:
        return NoAnswer(type(error).__name__)
    text = content.decode(errors="replace")
    return Answer(status=response.status, code=problem_code(content), text=text)
