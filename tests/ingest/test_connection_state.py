"""A connection always waits for exactly one of three things: a request, our answer, the close."""

from typing import get_args

import pytest

from ingest.connection_state import MOVES, WAITS, ConnectionState, State

REQUEST = ("begun", "head complete", "complete")


def after(*steps: str) -> ConnectionState:
    """Return the state after these steps; the step "answered" means that an answer was sent."""
    state = ConnectionState()
    for step in steps:
        if step == "answered":
            state.answered()
        else:
            state.move(step)
    return state


def test_every_state_defines_its_waits():
    assert set(WAITS) == set(get_args(State))


def test_every_state_can_end_and_nothing_follows_the_end():
    assert {MOVES[state, "end"] for state in get_args(State)} == {"ended"}
    assert [event for state, event in MOVES if state == "ended"] == ["end"]


@pytest.mark.parametrize(
    ("steps", "wait"),
    [
        ((), "request"),
        (("begun",), "request"),
        (("begun", "head complete"), "request"),
        (REQUEST, "answer"),
        ((*REQUEST, "answered"), "next request"),
        ((*REQUEST, "begun"), "request"),
        ((*REQUEST, *REQUEST, "answered"), "answer"),
        (("begun", "head complete", "answered", "complete"), "next request"),
        (("begun", "end"), "close"),
        (("begun", "head complete", "end"), "answer"),
        ((*REQUEST, "end", "answered"), "close"),
    ],
)
def test_a_connection_waits_for_the_party_whose_turn_it_is(steps, wait):
    assert after(*steps).new_wait() == wait


def test_each_request_and_each_answer_begins_a_new_wait_which_is_returned_only_once():
    state = after("begun")
    assert (state.new_wait(), state.new_wait()) == ("request", None)
    state.move("head complete")
    assert state.new_wait() is None
    state.move("complete")
    assert (state.new_wait(), state.new_wait()) == ("answer", None)
    state.move("begun")
    assert state.new_wait() == "request"
    state.answered()
    assert state.new_wait() == "request"


def test_a_dropped_request_needs_no_answer():
    state = after("begun", "head complete")
    state.drop()
    state.move("end")
    assert (state.unanswered, state.new_wait()) == (0, "close")


def test_an_illegal_step_raises_an_error():
    with pytest.raises(KeyError):
        ConnectionState().move("complete")
