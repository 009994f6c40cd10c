"""Commands print external text safely, and their progress bar counts records."""

import io

from rich.console import Console

from cli.printing import counting, line


def test_the_bar_shows_the_count_and_the_rate():
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    with counting(console, {"log": 2, "table": 0}) as heard:
        heard("log", 1)
        heard("log", 2)
    assert "reading log" in shown.getvalue()
    assert "3/3" in shown.getvalue()
    assert "/s" in shown.getvalue()


def test_without_a_terminal_there_is_no_bar():
    shown = io.StringIO()
    with counting(Console(file=shown), {"log": 2}) as heard:
        heard("log", 1)
    assert shown.getvalue().strip() == ""


def test_a_text_can_neither_start_a_line_nor_move_the_cursor():
    shown = io.StringIO()
    line(Console(file=shown), "evt[bold]\nNo difference\x1b[2J" + "x" * 200)
    assert shown.getvalue() == "evt[bold]\\nNo difference\\x1b[2J" + "x" * 200 + "\n"
