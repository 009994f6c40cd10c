"""A table's digest follows from its rows alone, and any change of them changes it."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.digest import Digest, RunningDigest, digest_of

ROWS = st.dictionaries(st.binary(max_size=4), st.binary(max_size=4), max_size=8)


@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_change_the_digest(rows, chance):
    shuffled = list(rows.items())
    chance.shuffle(shuffled)
    assert digest_of(shuffled) == digest_of(rows)


@given(ROWS, ROWS)
def test_tables_with_other_rows_have_other_digests(one, other):
    assert (digest_of(one) == digest_of(other)) is (one == other)


@given(st.lists(st.tuples(st.binary(max_size=2), st.none() | st.binary(max_size=2))))
def test_a_digest_that_follows_changes_is_that_of_the_rows_that_are_left(changes):
    rows: dict[bytes, bytes] = {}
    running = RunningDigest()
    for key, value in changes:
        running.replace(key, rows.get(key), value)
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
    assert running.now == digest_of(rows)


def test_a_byte_that_moves_from_the_key_to_the_value_changes_the_digest():
    assert digest_of({b"ab": b"c"}) != digest_of({b"a": b"bc"})


def test_the_digest_is_the_same_on_every_machine():
    # What a worker has stored is compared with what another machine computes.
    assert digest_of({b"pay_1": b"value", b"": b""}) == Digest(890573378121459456, 2)
