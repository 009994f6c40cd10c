"""What a worker counts: chunks as a whole, in few names however many types there are."""

from processors.counts import SECONDS, Counts


def test_outcomes_types_and_reasons_are_counted_apart():
    counts = Counts()
    counts.judged(
        {"folded": 3, "duplicate": 1, "unfolded.dispute.opened": 2, "rejected.id_missing": 1},
        {"payment.succeeded": 2, "refund.succeeded": 1},
    )
    counts.judged({"folded": 1}, {"payment.succeeded": 1})
    assert counts.outcomes == {"folded": 4, "duplicate": 1, "unfolded": 2, "rejected": 1}
    assert counts.types == {"payment.succeeded": 3, "refund.succeeded": 1, "dispute.opened": 2}
    assert counts.rejected == {"id_missing": 1}


def test_so_many_types_as_anybody_may_send_take_few_names():
    counts = Counts()
    for number in range(1000):
        counts.judged({f"unfolded.kind_{number}": 1}, {})
    counts.judged({"unfolded.kind_0": 1}, {})
    assert len(counts.types) == 21
    assert sum(counts.types.values()) == 1001
    assert (counts.types["kind_0"], counts.types["other"]) == (2, 980)


def test_the_last_seconds_are_kept_and_no_more():
    counts = Counts()
    for number in range(SECONDS + 5):
        counts.judged({"folded": number}, {})
        counts.second_is_over()
    counts.judged({"folded": 7}, {})
    assert counts.per_second == list(range(5, SECONDS + 5))
