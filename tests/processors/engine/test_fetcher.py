"""A worker keeps the headers of a record only if the first header names the record's dialect."""

import pytest
from aiokafka.structs import TopicPartition

from processors.engine.fetcher import marked, record_of
from runtime.kafka.fetched import Batches, _Record

TP = TopicPartition("log", 3)
MARK = ("dialect", b"pay")


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ([], 0),
        ([("plexy-signature", b"t=1")], 0),
        ([("plexy-signature", b"t=1"), MARK], 0),
        ([MARK], 1),
        ([MARK, ("amounts", b"minor")], 2),
        ([MARK, *[("x", b"")] * 1000], 10),
    ],
)
def test_the_first_header_decides_whether_the_headers_are_kept(headers, kept):
    record = _Record(7, 1000, b"k", b"v", headers)
    made = marked("dialect", record_of)(Batches(b""), TP, record)
    assert (made.key, made.value, made.partition, made.offset) == (b"k", b"v", 3, 7)
    assert list(made.headers) == headers[:kept]
