"""A table's digest depends only on its rows, and every change to the rows changes the digest."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.digest import RESERVED, ChangelogDigest, Digest, RunningDigest, digest_of

ROWS = st.dictionaries(st.binary(max_size=4), st.binary(max_size=4), max_size=8)


@given(ROWS, st.randoms())
def test_the_sequence_of_rows_does_not_change_the_digest(rows, chance):
    shuffled = list(rows.items())
    chance.shuffle(shuffled)
    assert digest_of(dict(shuffled)) == digest_of(rows)


@given(ROWS, ROWS)
def test_tables_with_different_rows_have_different_digests(one, other):
    assert (digest_of(one) == digest_of(other)) is (one == other)


@given(st.lists(st.tuples(st.binary(max_size=2), st.none() | st.binary(max_size=2))))
def test_a_running_digest_equals_the_digest_of_the_rows_that_remain(changes):
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
    # A digest that a worker stored is compared with the digest that another machine computes.
    assert digest_of({b"pay_1": b"value", b"": b""}) == Digest(890573378121459456, 2)


# Consecutive offsets of a changelog may differ by more than one: compaction leaves gaps.
RECORDS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.binary(max_size=2) | st.just(RESERVED + b"claim"),
        st.none() | st.binary(max_size=2),
    )
)


class _Changelog:
    """A changelog partition, and each key's latest value among the records read so far."""

    def __init__(self, records) -> None:
        self.records, self.end = [], 0
        for gap, key, value in records:
            self.records.append((self.end + gap - 1, key, value))
            self.end += gap
        self.values: dict[bytes, bytes] = {}

    def read(self, digest: ChangelogDigest, start: int, end: int) -> None:
        for offset, key, value in self.records:
            if start <= offset < end:
                digest.take(offset, key, self.values.get(key), value)
                if value is None:
                    self.values.pop(key, None)
                else:
                    self.values[key] = value
        digest.reach(end)

    def due(self, end: int) -> Digest:
        rows = {key: value for offset, key, value in self.records if offset < end}
        return digest_of(
            {k: v for k, v in rows.items() if v is not None and not k.startswith(RESERVED)}
        )


@given(RECORDS)
def test_the_digest_at_an_offset_is_the_digest_of_each_keys_last_value_below_that_offset(records):
    changelog, digest = _Changelog(records), ChangelogDigest()
    changelog.read(digest, 0, changelog.end)
    for end in range(changelog.end + 1):
        assert digest.at(end) == changelog.due(end)
    assert digest.at(changelog.end + 1) is None


@given(RECORDS, st.data())
def test_a_changelog_that_is_read_in_rounds_has_a_digest_at_each_offset_not_yet_forgotten(
    records, data
):
    changelog, digest = _Changelog(records), ChangelogDigest()
    begin = kept = 0
    while begin < changelog.end:
        end = data.draw(st.integers(begin + 1, changelog.end))
        changelog.read(digest, begin, end)
        for each in range(end + 1):
            assert digest.at(each) == (changelog.due(each) if each >= kept else None)
        kept = max(kept, data.draw(st.integers(0, end)))
        digest.forget(kept)
        begin = end


def test_after_an_interrupted_reading_only_the_later_offsets_have_a_digest():
    """The reader reads the first records a second time, when it already has their values."""
    records = [(1, b"a", b"1"), (1, b"b", b"2"), (1, b"a", b"3"), (1, b"b", None), (1, b"c", b"4")]
    changelog, digest = _Changelog(records), ChangelogDigest()
    changelog.read(digest, 0, 3)
    changelog.read(digest, 0, 5)
    due = [changelog.due(end) if end >= 3 else None for end in range(6)]
    assert [digest.at(end) for end in range(6)] == due
