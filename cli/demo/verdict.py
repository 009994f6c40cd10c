"""Compares the demo's outcome with the expected outcome; each difference is one line."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from cli.demo.sample import SampleOutcome

_ABSENT: Final = object()


def differences(expected: SampleOutcome, actual: SampleOutcome) -> list[str]:
    """Return a line for each difference; the list is empty if the outcomes are equal."""
    found = [
        *_unmatched("refused", expected.refused, actual.refused),
        *_unmatched("rejected", expected.rejected, actual.rejected),
    ]
    for order_id in sorted(expected.orders.keys() | actual.orders.keys()):
        wanted = expected.orders.get(order_id, _ABSENT)
        got = actual.orders.get(order_id, _ABSENT)
        found += [f"order {order_id}: {line}" for line in compare(wanted, got)]
    if not found and expected.orders != actual.orders:
        found.append("the orders differ, but the comparison found no difference: this is a bug")
    return found


def compare(expected: Any, actual: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each place where two JSON values differ.

    >>> list(compare({"paid": 5, "net": [1]}, {"paid": 6, "net": [1, 2]}))
    ['net[1]: expected nothing, got 2', 'paid: expected 5, got 6']
    """
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys()):
            there = f"{path}.{key}" if path else str(key)
            yield from compare(expected.get(key, _ABSENT), actual.get(key, _ABSENT), there)
    elif isinstance(expected, list) and isinstance(actual, list):
        for n in range(max(len(expected), len(actual))):
            yield from compare(_item(expected, n), _item(actual, n), f"{path}[{n}]")
    elif type(expected) is not type(actual) or expected != actual:
        # The types are compared too, because 1 and True are equal in Python.
        prefix = f"{path}: " if path else ""
        yield f"{prefix}expected {_shown(expected)}, got {_shown(actual)}"


def _unmatched(what: str, expected: Iterable[Any], actual: Iterable[Any]) -> Iterator[str]:
    """Yield a line for each item that only one side has.

    The sequence of the items does not matter, because partitions may be read in any sequence.
    """
    wanted, got = Counter(expected), Counter(actual)
    for item in sorted((wanted - got).elements()):
        yield f"{what}: expected {item}, which is missing"
    for item in sorted((got - wanted).elements()):
        yield f"{what}: got {item}, which was not expected"


def _item(values: Sequence[Any], n: int) -> Any:
    return values[n] if n < len(values) else _ABSENT


def _shown(value: Any) -> str:
    """Return a value as text, shortened to 200 characters."""
    return "nothing" if value is _ABSENT else f"{value!r:.200}"
