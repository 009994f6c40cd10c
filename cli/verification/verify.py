"""`plexy-ledger verify`: compares the log of record once with everything derived from the log.

The command prints the extent of the comparison, and each difference with its events. It writes
nothing to Kafka, and prints no secret.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec
from rich.console import Console

from cli.errors import WrongOptionError
from cli.printing import counted, counting, line
from cli.settings import JudgeSettings, ProveSettings, VerifySettings
from cli.topics.lag import progress_bar
from cli.topics.ledger_reader import LedgerReader, Offsets, open_reader, sizes
from cli.verification.auditor import Auditor, Findings, holdings
from cli.verification.findings import show_balances, show_differences, show_events
from cli.verification.replicas import Workers
from ledger.notes import shown
from ledger.trust import Trust
from ledger.verification.differences import Difference, references
from ledger.verification.truth import Truth
from runtime import trust
from runtime.kafka.partitions import partition_for
from runtime.kafka.topics import ensure_topics

_FROM_THE_START: Final[Offsets] = MappingProxyType({})


class VerifyOptions(msgspec.Struct, frozen=True):
    """The scope of the comparison; the workers may take ``wait_s`` seconds to catch up."""

    since: datetime | None = None
    order_id: str | None = None
    old_secrets: Path | None = None
    wait_s: float = 60.0
    worker_urls: tuple[str, ...] = ()


def verify(environment: Mapping[str, str], options: VerifyOptions, console: Console) -> bool:
    """Verify a ledger; return whether nothing differs."""
    settings = VerifySettings.from_environment(environment)
    return asyncio.run(_verify(settings, options, console))


async def _verify(settings: VerifySettings, options: VerifyOptions, console: Console) -> bool:
    await ensure_topics(settings, create=False)
    async with open_reader(settings) as reader:
        with progress_bar(console) as report:
            settled = await reader.settle(options.wait_s, report)
        since = await _since(reader, options)
        truth = new_truth(settings, _old_secrets(options), since)
        with counting(console, await _records(reader)) as heard:
            workers = Workers.of(settings, options.worker_urls)
            auditor = Auditor(reader, truth, heard, workers)
            findings = await auditor.audit(settled)
        if other := await reader.difference_from_workers(settings):
            line(console, f"{'settings':<14} {other}")
        differences = list(_wanted(findings.differences, truth, options, since))
        _show_scope(console, settings, options, truth, findings, auditor.entries)
        if options.order_id is not None:
            _show_order(console, truth, options.order_id)
        show_balances(console, findings.balances)
        show_differences(console, differences)
    return not differences


def new_truth(settings: JudgeSettings, old_secrets: Iterable[bytes], since: Offsets) -> Truth:
    """Return a new ``Truth``; the settings decide which signatures it trusts."""
    partition_of = partial(partition_for, partitions=settings.partitions)
    trusted = trust_of(settings, old_secrets, since)
    enforced = trust.enforced_trust(settings)
    return Truth(settings.reading, trusted, partition_of, settings.forget_after_ms, enforced)


def trust_of(
    settings: JudgeSettings | ProveSettings,
    old_secrets: Iterable[bytes] = (),
    since: Offsets = _FROM_THE_START,
) -> Trust | None:
    """Return which signatures these settings trust; ``None`` if no signature is checked."""
    return None if settings.allow_unsigned else trust.trust_of(settings, old_secrets, since)


def _old_secrets(options: VerifyOptions) -> list[bytes]:
    if options.old_secrets is None:
        return []
    try:
        lines = options.old_secrets.read_bytes().splitlines()
    except OSError as error:
        raise WrongOptionError(f"--old-secrets {options.old_secrets}: {error.strerror}") from None
    secrets = [line.strip() for line in lines if line.strip()]
    if not secrets:
        raise WrongOptionError(f"--old-secrets {options.old_secrets}: the file has no secret")
    return secrets


async def _since(reader: LedgerReader, options: VerifyOptions) -> Offsets:
    """Return, for each partition, the offset of the first record since ``options.since``.

    Every record after that offset is compared, whatever the time of the record is, because that
    time may be wrong.
    """
    if options.since is None:
        return {}
    at_ms = int(options.since.replace(tzinfo=UTC).timestamp() * 1000)
    return await reader.since(reader.names.topics.webhooks, at_ms)


async def _records(reader: LedgerReader) -> dict[str, int]:
    """Count the records to read from each topic."""
    topics = reader.names.topics
    names = [topics.webhooks, *(holding.topic for holding in holdings(reader.names))]
    names.append(topics.entries)
    return {name: sizes(await reader.begins(name), await reader.ends(name)) for name in names}


def _wanted(
    differences: Iterable[Difference], truth: Truth, options: VerifyOptions, since: Offsets
) -> Iterator[Difference]:
    """Yield the differences that the options select.

    A difference that has no events has no time, so it is reported whatever ``since`` is.
    """
    payments = set(truth.naming(options.order_id)) if options.order_id is not None else set()
    for found in differences:
        events = found.events
        if events and all(event.offset < since.get(event.partition, 0) for event in events):
            continue
        of_order = found.order_id == options.order_id or found.payment_id in payments
        if options.order_id is None or of_order:
            yield found


def _show_scope(  # noqa: PLR0913, PLR0917 - the printed lines use every parameter
    console: Console,
    settings: VerifySettings,
    options: VerifyOptions,
    truth: Truth,
    findings: Findings,
    entries: int,
) -> None:
    counts, rules = truth.counts, settings.reading.rules
    rejected = sum(number for name, number in counts.items() if name.startswith("rejected."))
    signatures = "not checked (LEDGER_ALLOW_UNSIGNED=true)"
    if not settings.allow_unsigned:
        signatures = f"checked again, {counts['signatures_bad']} not good"
        if settings.verify_signatures == "worker":
            signatures += ", and set aside by the workers"
        if counts["bearer"]:
            signatures += f"; {counted(counts['bearer'], 'record')} by bearer token, unsigned"
        if options.since:
            signatures += f" (of deliveries since {options.since:%Y-%m-%d %H:%M:%S} UTC)"
    log_s = counts["records"] / max(findings.took_s, 0.001)
    lines = {
        "log of record": f"{counted(counts['records'], 'record')}, up to offsets {_offsets(truth)}",
        "rules": f"{rules.name}, {rules.digest}",
        "signatures": signatures,
        "events": f"{counts['folded']:,} folded, {counted(counts['duplicate'], 'duplicate')}, "
        f"{rejected:,} rejected",
        "compared": f"{counted(len(truth.payments), 'payment')}, "
        f"{counted(_orders(truth), 'order')}, {counted(entries, 'entry', 'entries')}; "
        f"{counted(findings.moving, 'payment')} in motion",
        "disks": str(findings.disks),
        "took": f"{findings.took_s:.1f} s for {counted(findings.records, 'record')} from all "
        f"topics, {log_s:,.0f} records of the log a second",
    }
    for name, text in lines.items():
        line(console, f"{name:<14} {text}")


def _orders(truth: Truth) -> int:
    return len(truth.orders())


def _offsets(truth: Truth) -> str:
    return ", ".join(f"{number}:{end}" for number, end in sorted(truth.settled.items()))


def _show_order(console: Console, truth: Truth, order_id: str) -> None:
    payments = sorted(truth.naming(order_id))
    line(console, f"order {order_id}: {counted(len(payments), 'payment')} named it")
    for payment_id in payments:
        payment = truth.payment(payment_id)
        where = "" if order_id in payment.orders else f", is in order {payment.order_id}"
        line(console, f"  payment {payment_id}{where}")
        facts = truth.facts.get(payment_id, {}).values()
        show_events(console, references([*facts, *shown(payment.notes)]))
