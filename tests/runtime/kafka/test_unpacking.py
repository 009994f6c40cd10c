"""Unpacking returns the original bytes, and stops at the limit before it fills the memory."""

import contextlib
import gzip
import resource

import pytest
from aiokafka.record.default_records import DefaultRecordBase as Base
from hypothesis import given
from hypothesis import strategies as st

from runtime.kafka.unpacking import TooMuchError, UnpackError, unpack
from tests.record_batches import PACKERS, packed_zeros

BOUND = 100_000


@pytest.mark.parametrize("number", PACKERS)
@pytest.mark.parametrize("size", [0, 1, 70_000, BOUND])
def test_the_original_bytes_are_returned_up_to_the_limit(number, size):
    text = bytes(n % 251 for n in range(size))
    assert unpack(number, memoryview(PACKERS[number](text)), BOUND) == text


@pytest.mark.parametrize("number", PACKERS)
def test_one_byte_above_the_limit_is_too_much(number):
    packed = PACKERS[number](bytes(BOUND + 1))
    with pytest.raises(TooMuchError):
        unpack(number, memoryview(packed), BOUND)


def test_three_hundred_megabytes_of_zeros_are_refused_with_little_memory():
    packed = packed_zeros(300 << 20)
    assert len(packed) < 400_000
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooMuchError):
        unpack(Base.CODEC_GZIP, memoryview(packed), 16 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 64 * 1024


@pytest.mark.parametrize("number", PACKERS)
@given(data=st.data())
def test_damaged_bytes_raise_only_an_unpack_error_or_a_too_much_error(number, data):
    packed = bytearray(PACKERS[number](b"some text, some text, some text" * 9))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    damaged = bytes(packed[: data.draw(st.integers(0, len(packed)))])
    with contextlib.suppress(TooMuchError, UnpackError):
        unpack(number, memoryview(damaged), BOUND)


def test_many_concatenated_streams_are_refused_after_the_first_stream():
    with pytest.raises(UnpackError, match="not one whole gzip stream"):
        unpack(Base.CODEC_GZIP, memoryview(gzip.compress(b"") * 100_000), BOUND)


def test_bytes_without_a_codec_are_returned_unchanged():
    assert unpack(Base.CODEC_NONE, memoryview(b"abc"), 1) == b"abc"


def test_an_unknown_codec_raises_an_unpack_error():
    with pytest.raises(UnpackError, match="no codec 5"):
        unpack(5, memoryview(b"abc"), BOUND)
