"""Reads the cases of ``webhooks.jsonl``; each case has deliveries and their expected outcome."""

import json
from pathlib import Path

_LINES = (Path(__file__).parent / "webhooks.jsonl").read_text(encoding="utf-8").splitlines()
CASES = {case["name"]: case for case in map(json.loads, _LINES)}

# Only tests/ingest/test_cases.py tests these cases, over a real connection.
OVER_HTTP = {
    "query_string",
    "sig_two_v1",
    "sig_spaces_order_upper_v0",
    "sig_t_ms",
    "reserialised_by_proxy",
    "http10",
    "chunked",
    "expect100",
    "concurrent_12x",
}
