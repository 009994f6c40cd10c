"""Makes one attempt at a delivery, as Plexy does: a signed POST that waits 30 s for an answer.

The result is the answer, or the reason why there is no answer. ``simulation`` makes the retries.
"""

import time
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from cli.errors import WrongOptionError
from cli.notifications import bearer_headers
from cli.run.supervisor import Backoff
from cli.send import Answer, problem_code, signed_headers
from cli.simulate.schedule import ScheduledDelivery
from cli.simulate.stories import SDK, Dialects
from ledger.signature import DEFAULT_TOLERANCE_S, SignedForm

# Plexy documents that it retries, but not at what times. Here, each wait is twice the previous
# wait, up to a limit, and the retries never end.
_BACKOFF: Final = Backoff(first_s=1.0, longest_s=300.0)


class SenderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The address, the signature and the rate of the deliveries.

    ``tokens`` are the tokens of the Pay API, and ``pay_url`` is the address to which the Pay API's
    notifications go. If there are several ``secrets``, they are used one after another, each for an
    equal share of the run. ``rate_per_s`` is the number of first attempts per second; 0 means as
    many as ingress can answer. ``time_scale`` multiplies the waits between attempts, and nothing
    else. ``rules`` names the rule set whose events are sent.
    """

    url: str
    secrets: tuple[str, ...]
    pay_url: str = ""
    tokens: tuple[str, ...] = ()
    dialects: Dialects = SDK
    form: SignedForm = SignedForm.EITHER
    tolerance_s: int = DEFAULT_TOLERANCE_S
    rate_per_s: float = 0.0
    time_scale: float = 1.0
    concurrency: int = 32
    answer_within_s: float = 30.0
    rules: str = "seed"

    def __post_init__(self) -> None:
        # A wrong address must be refused here, because deliveries to a wrong address would be
        # retried forever.
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise WrongOptionError(
                f"--url: expected an address such as http://127.0.0.1:8000/webhooks/plexy, "
                f"got {self.url!r}"
            )

    def wait_s(self, failures: int) -> float:
        """Return the wait before the next attempt, after ``failures`` failed attempts."""
        return _BACKOFF.delay_s(failures) * self.time_scale


class Unanswered(msgspec.Struct, frozen=True):
    """There was no answer, so it is unknown whether the delivery arrived."""

    reason: str


def headers(
    delivery: ScheduledDelivery, options: SenderOptions, *, secret: str, is_retry: bool
) -> dict[str, str]:
    """Return an attempt's headers; only a first attempt may have a wrong time or token."""
    if delivery.is_pay:
        is_wrong = abs(delivery.skew) > 1 and not is_retry
        return bearer_headers("a token of another shop" if is_wrong else secret)
    skew_s = 0.0 if is_retry else delivery.skew * options.tolerance_s
    form = options.form
    if form is SignedForm.EITHER:
        form = (SignedForm.BODY, SignedForm.TIMESTAMPED)[delivery.number % 2]
    return signed_headers(delivery.body, secret, at_s=time.time() + skew_s, form=form)


def client(options: SenderOptions) -> aiohttp.ClientSession:
    """Return a client that keeps a connection open for each concurrent attempt."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=options.concurrency),
        timeout=aiohttp.ClientTimeout(total=options.answer_within_s),
    )


async def post(
    session: aiohttp.ClientSession, url: str, body: bytes, signed: dict[str, str]
) -> Answer | Unanswered:
    """Make one attempt; a network failure is returned, not raised."""
    try:
        async with session.post(url, data=body, headers=signed, allow_redirects=False) as response:
            content = await response.read()
    except TimeoutError:
        return Unanswered("timeout")
    except (aiohttp.ClientError, OSError) as error:
        return Unanswered(type(error).__name__)
    text = content.decode(errors="replace")
    return Answer(status=response.status, code=problem_code(content), text=text)
