"""The findings of an audit are printed safely, and long lists are shortened."""

import io

from rich.console import Console

from cli.verification.findings import show_differences
from ledger.verification.differences import Difference, DifferenceKind, references
from ledger.verification.remedies import REMEDIES
from tests.ledger.examples import success


def _difference(subject: str, *facts) -> Difference:
    return Difference(
        kind=DifferenceKind.ORDER_DIFFERS, subject=subject, detail="", events=references(facts)
    )


def _terminal() -> tuple[Console, io.StringIO]:
    shown = io.StringIO()
    return Console(file=shown, force_terminal=True, width=120, color_system=None), shown


def test_long_lists_of_differences_and_events_are_shortened_and_counted():
    console, shown = _terminal()
    events = [success(f"evt_{n}") for n in range(12)]
    show_differences(console, [_difference(f"order {n}", *events) for n in range(103)])
    text = shown.getvalue()
    assert text.count("order_differs  order") == 100
    assert "… and 3 more: 3 order_differs" in text
    assert "… and 2 more events" in text
    assert text.rstrip().endswith("103 differences")


def test_an_id_can_neither_forge_a_line_nor_move_the_cursor():
    console, shown = _terminal()
    evil = "evt\nNo difference\x1b[2J"
    show_differences(console, [_difference(f"event {evil}", success(evil))])
    assert "evt\\nNo difference\\x1b[2J" in shown.getvalue()
    assert "\x1b" not in shown.getvalue()
    # The four lines are the difference, its event, the remedy and the total.
    assert len(shown.getvalue().splitlines()) == 4


def test_the_remedy_of_each_kind_of_difference_is_printed_once():
    console, shown = _terminal()
    show_differences(console, [_difference("order 1"), _difference("order 2")])
    remedy = REMEDIES[DifferenceKind.ORDER_DIFFERS]
    assert shown.getvalue().count(f"order_differs: {remedy.meaning} {remedy.action}") == 1
