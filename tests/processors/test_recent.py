"""Only the counts of the last seconds are kept."""

from processors.recent import SECONDS, LastSeconds


def test_only_the_counts_of_the_last_seconds_are_kept():
    seconds = LastSeconds()
    total = 0
    for number in range(SECONDS + 5):
        total += number
        seconds.second_is_over(total)
    assert seconds.counts == list(range(5, SECONDS + 5))
