"""A worker folds a partition only with the rules with which the partition was folded before."""

from types import SimpleNamespace

import pytest

from ledger.deduplication import Progress
from ledger.lifecycle import LIFECYCLE, SEED
from ledger.wire import PROGRESS
from processors.dedupe import OtherStateError, require_rules


def table(progress):
    row = None if progress is None else PROGRESS.encode(progress)
    return SimpleNamespace(name="seen", changelog_name="c", read=lambda _partition, _key: row)


@pytest.mark.parametrize("progress", [None, Progress(b"", 4, 7, 0, SEED.digest)])
def test_an_empty_partition_and_a_partition_with_the_same_rules_are_folded(progress):
    require_rules(table(progress), SEED, 0)


def test_a_partition_that_was_folded_with_other_rules_is_refused_with_both_digests_and_a_remedy():
    folded = table(Progress(b"", 4, 7, 0, SEED.digest))
    with pytest.raises(OtherStateError, match="plexy-ledger rebuild") as error:
        require_rules(folded, LIFECYCLE, 3)
    for text in ("partition 3", SEED.digest, "LEDGER_RULES=lifecycle", LIFECYCLE.digest):
        assert text in str(error.value)


def test_a_partition_of_an_earlier_release_is_refused():
    with pytest.raises(OtherStateError, match="of an earlier release"):
        require_rules(table(Progress(b"", 4, 7, 0)), SEED, 0)
