"""`build/bench.json` has two halves, ingest and fold; a measurement replaces only its own half."""

import json

from bench.results import keep


def test_a_new_half_replaces_the_old_half_and_leaves_the_other_half_unchanged(tmp_path):
    path = tmp_path / "build" / "bench.json"
    keep(path, "ingest", {"ours": 5_000.0, "go": 20_000.0}, connections=256)
    keep(path, "fold", {"ours": 1.0, "gone": 2.0}, runs=["first"], gone=True)
    keep(path, "fold", {"ours": 14_000.04}, runs=["second"])
    assert json.loads(path.read_text()) == {
        "ingest": {"ours": 5_000.0, "go": 20_000.0},
        "fold": {"ours": 14_000.0},
        "details": {"ingest": {"connections": 256}, "fold": {"runs": ["second"]}},
    }
