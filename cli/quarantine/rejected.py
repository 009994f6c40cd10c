"""`plexy-ledger rejected list` and `show` print rejected items and the reasons of the rejections.

Both commands only read. Control characters of a body never reach the terminal, except with
``--raw``, which is for files and pipes.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, get_args

import msgspec
from rich.console import Console

from cli.errors import NotReadError, WrongOptionError
from cli.printing import counted, line
from cli.quarantine.items import ItemReader, Put, Records, judge, read_quarantine
from cli.settings import JudgeSettings
from cli.topics.ledger_reader import open_reader
from cli.verification.verify import trust_of
from ledger.quarantine import Item, ItemState, Quarantine
from ledger.rejections import Reason
from ledger.verification.history import signature_of
from runtime.kafka.topics import TopicSettings

# If `--raw` is not given, at most this many bytes of a body are shown.
_SHOWN_BYTES: Final = 4096


class ListOptions(msgspec.Struct, frozen=True):
    """Selects the items to list; ``since`` is in UTC."""

    put_back: bool = False
    reason: Reason | None = None
    since: datetime | None = None
    as_json: bool = False


def list_items(environment: Mapping[str, str], options: ListOptions, console: Console) -> None:
    """Print the items of the quarantine, the latest item last."""
    settings = TopicSettings.from_environment(environment)
    quarantine = asyncio.run(_read(settings, console))
    items = [item for item in quarantine.ordered() if _is_wanted(item, options)]
    if options.as_json:
        for item in items:
            sys.stdout.write(msgspec.json.encode(_document(item)).decode() + "\n")
        return
    _show_items(console, items)
    states = Counter(item.state for item in quarantine.items.values())
    names: tuple[ItemState, ...] = get_args(ItemState)
    line(console, ", ".join(f"{states[name]} {_words(name)}" for name in names))


def show_item(environment: Mapping[str, str], item_id: str, console: Console, *, raw: bool) -> None:
    """Print one item with its body, and what a retry would do."""
    settings = JudgeSettings.from_environment(environment)
    item, records = asyncio.run(_find(settings, item_id, console))
    if raw and records.body is None:
        raise NotReadError(f"{_lost_bytes(item)}, so there is nothing to write")
    if raw:
        sys.stdout.buffer.write(records.body or b"")
        return
    for name, text in _facts(item, records, settings):
        line(console, f"{name:<10} {text}")
    if records.body is None:
        line(console, _lost_bytes(item))
        return
    body = records.body
    line(console, body[:_SHOWN_BYTES].decode(errors="backslashreplace"))
    if len(body) > _SHOWN_BYTES:
        more = counted(len(body) - _SHOWN_BYTES, "more byte")
        line(console, f"… and {more}: --raw writes the whole body")


def found(quarantine: Quarantine, item_id: str) -> Item:
    """Return an item by its id; raise ``WrongOptionError`` if there is no such item."""
    if item_id not in quarantine.items:
        raise WrongOptionError(
            f"no rejected item has the id {item_id}; `plexy-ledger rejected list --all` lists all "
            "items"
        )
    return quarantine.items[item_id]


def at(time_ms: int) -> str:
    """Return a time in UTC in a readable form."""
    try:
        return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        # The writer of a record chooses the record's time, which may lie outside the calendar.
        return f"{time_ms} ms"


async def _read(settings: TopicSettings, console: Console) -> Quarantine:
    async with open_reader(settings) as reader:
        return await read_quarantine(reader, console)


async def _find(settings: JudgeSettings, item_id: str, console: Console) -> tuple[Item, Records]:
    async with open_reader(settings) as reader:
        item = found(await read_quarantine(reader, console), item_id)
        return item, await ItemReader(reader).records(item)


def _is_wanted(item: Item, options: ListOptions) -> bool:
    since_ms = options.since.replace(tzinfo=UTC).timestamp() * 1000 if options.since else 0
    return (
        (item.is_open or options.put_back)
        and options.reason in {None, item.reason}
        and item.at_ms >= since_ms
    )


def _show_items(console: Console, items: list[Item]) -> None:
    rows = [_cells(item) for item in items]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for item, row in zip(items, rows, strict=True):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        line(console, f"{'  '.join(cells)}  {item.detail}")


def _cells(item: Item) -> tuple[str, str, str, str]:
    return item.id, at(item.at_ms), state_text(item), item.reason


def state_text(item: Item) -> str:
    """Return the state of an item in words."""
    if item.put_back is None:
        return "open"
    joint = "by" if item.put_back.is_corrected else "to"
    return f"{_words(item.state)} {joint} {item.put_back.to}"


def _words(state: ItemState) -> str:
    return state.replace("_", " ")


def _document(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "state": item.state,
        "reason": item.reason,
        "detail": item.detail,
        "key": item.key.decode(errors="replace"),
        "origin": item.origin,
        "source": item.source._asdict() if item.source else None,
        "at_ms": item.at_ms,
        "unkept": msgspec.to_builtins(item.unkept),
        "times": item.times,
        "put_back": {"to": item.put_back.to, "at_ms": item.put_back.at_ms}
        if item.put_back
        else None,
    }


def _facts(item: Item, records: Records, settings: JudgeSettings) -> list[tuple[str, str]]:
    state = f"{state_text(item)} on {at(item.put_back.at_ms)}" if item.put_back else "open"
    place = f"{item.source}" if item.source else f"{item.origin}: it was never in the log"
    return [
        ("item", item.id),
        ("state", state),
        ("reason", item.reason),
        ("detail", item.detail),
        ("key", item.key.decode(errors="backslashreplace")),
        ("from", place),
        ("rejected", f"{at(item.at_ms)} UTC, written {counted(item.times, 'time')}"),
        *(("header", f"{n}: {v.decode('latin-1')}") for n, v in records.delivered.headers),
        ("signature", _signature(records, settings)),
        ("now", _verdict(item, records, settings)),
        ("body", _size(item, records)),
    ]


def _size(item: Item, records: Records) -> str:
    if item.unkept is None:
        return f"{len(records.body or b''):,} bytes"
    return (
        f"{item.unkept.size_bytes:,} bytes, too large for the quarantine; "
        f"SHA-256 {item.unkept.sha256}"
    )


def _lost_bytes(item: Item) -> str:
    return f"the bytes of {item.id} are no longer at {item.source}"


def _signature(records: Records, settings: JudgeSettings) -> str:
    trust = trust_of(settings)
    if trust is None:
        return "not checked (LEDGER_ALLOW_UNSIGNED=true)"
    return signature_of(records.delivered, trust)


def _verdict(item: Item, records: Records, settings: JudgeSettings) -> str:
    verdict = judge(item, records, settings)
    if isinstance(verdict, Put):
        key = verdict.record.key.decode(errors="backslashreplace")
        return f"a retry would put it into {verdict.topic} with the key {key}"
    return f"a retry would leave it as it is: {verdict.why}"
