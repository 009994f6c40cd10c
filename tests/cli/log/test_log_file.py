"""Reading a log file returns its records byte for byte, or reports the first damaged block."""

import hashlib
import io
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.errors import LogFileError
from cli.log.log_file import (
    MAGIC,
    MAX_BLOCK_BYTES,
    Block,
    End,
    Extent,
    Gap,
    Header,
    LogFile,
    LogFileWriter,
    LogRecord,
    as_blocks,
)
from ledger.topics import MAX_RECORD_BYTES

_BYTES = st.none() | st.binary(max_size=20)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_RECORDS = st.builds(
    LogRecord,
    timestamp_ms=st.integers(-1, 2**62),
    key=_BYTES,
    value=_BYTES,
    headers=st.lists(st.tuples(_TEXT, _BYTES), max_size=3).map(tuple),
)
_RECORD = LogRecord(1_767_225_600_123, b"evt_1", b"{}", (("plexy-signature", b"t=1,v1=00"),))


def header(ends: tuple[int, ...]) -> Header:
    begins = (0,) * len(ends)
    return Header(
        topic="plexy.webhooks",
        cluster_id="c",
        exported_at="2026-01-31T00:00:00+00:00",
        begins=begins,
        ends=ends,
    )


def written(blocks: list[Block], ends: tuple[int, ...]) -> tuple[bytes, End]:
    file = io.BytesIO()
    writer = LogFileWriter(file, header(ends))
    for block in blocks:
        writer.write(block)
    end = writer.end()
    return file.getvalue(), end


def read(data: bytes) -> tuple[LogFile, list[Block]]:
    file = LogFile(io.BytesIO(data))
    return file, list(file.blocks())


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Block], tuple[int, ...]]:
    """Draw blocks without gaps for up to three partitions; also return the end offsets."""
    ends = [0] * draw(st.integers(1, 3))
    blocks = []
    for _ in range(draw(st.integers(0, 5))):
        partition = draw(st.integers(0, len(ends) - 1))
        records = draw(st.lists(_RECORDS, min_size=1, max_size=4))
        blocks.append(Block(partition, ends[partition], records))
        ends[partition] += len(records)
    return blocks, tuple(ends)


def small() -> bytes:
    blocks = [Block(0, 0, [_RECORD, _RECORD]), Block(1, 0, [_RECORD]), Block(0, 2, [_RECORD])]
    return written(blocks, (3, 1))[0]


@given(logs())
def test_a_log_is_read_byte_for_byte_as_it_was_written(log):
    blocks, ends = log
    data, end = written(blocks, ends)
    file, found = read(data)
    assert found == blocks
    assert file.header == header(ends)
    assert (file.end, file.gaps) == (end, [])
    assert end.records == sum(ends) == file.header.records


def test_an_empty_value_is_distinguished_from_a_missing_value():
    record = LogRecord(0, None, b"", (("", None), ("a", b"")))
    _, (block,) = read(written([Block(0, 0, [record])], (1,))[0])
    assert block.records == [record]


def test_the_end_of_a_file_has_the_number_of_records_of_each_partition():
    _, end = written([Block(0, 0, [_RECORD] * 2), Block(0, 2, [_RECORD])], (3, 0))
    assert end == End(blocks=2, records=3, partitions=(Extent(3, 0, 2), Extent()))


def test_each_digest_is_the_sha256_of_all_bytes_before_it():
    data = small()
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_every_altered_byte_is_detected(change):
    data = small()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= change
        with pytest.raises(LogFileError):
            read(bytes(damaged))


def test_a_file_that_is_truncated_at_any_byte_is_reported_as_damaged():
    data = small()
    for length in range(len(data)):
        with pytest.raises(LogFileError):
            read(data[:length])


def test_a_file_that_continues_after_its_end_is_reported_as_damaged():
    with pytest.raises(LogFileError, match="continues after it"):
        read(small() + b"\n")


def _frames(data: bytes) -> list[bytes]:
    frames, place = [], len(MAGIC)
    while place < len(data):
        length = 5 + int.from_bytes(data[place + 1 : place + 5], "big") + 32
        frames.append(data[place : place + length])
        place += length
    return frames


@pytest.mark.parametrize(
    ("order", "block"),
    [((0, 2, 1, 3, 4), 1), ((0, 1, 3, 4), 2), ((0, 1, 1, 2, 3, 4), 2), ((0, 1, 4), 2)],
    ids=["swapped", "missing", "repeated", "missing up to the end"],
)
def test_a_moved_missing_or_repeated_block_is_reported(order, block):
    frames = _frames(small())
    assert MAGIC + b"".join(frames) == small()
    with pytest.raises(LogFileError, match=f"block {block}: its checksum is wrong"):
        read(MAGIC + b"".join(frames[n] for n in order))


def test_the_first_damaged_block_is_reported_and_no_later_block_is_read():
    data = bytearray(small())
    data[data.index(_frames(small())[2]) + 40] ^= 1
    file = LogFile(io.BytesIO(data))
    blocks = file.blocks()
    assert next(blocks).partition == 0
    with pytest.raises(LogFileError, match="damaged at block 2: its checksum is wrong"):
        next(blocks)


def test_a_damaged_length_does_not_fill_memory():
    data = bytearray(small())
    place = data.index(_frames(small())[1])
    data[place + 1 : place + 5] = b"\xff\xff\xff\xff"

    class Measured(io.BytesIO):
        def read(self, size: Any = -1) -> bytes:
            assert size < 2**20
            return super().read(size)

    with pytest.raises(LogFileError, match="got a frame of 4294967295 bytes"):
        list(LogFile(Measured(data)).blocks())


def _zeros(size_bytes: int) -> bytes:
    """Return the zlib stream of a block with one record, whose value has `size_bytes` zeros."""
    packing = zlib.compressobj()
    start = b"\x93\x00\x00\x91\x94\x00\xc0\xc6" + size_bytes.to_bytes(4, "big")
    chunk = bytes(2**20)
    parts = [packing.compress(start), *(packing.compress(chunk) for _ in range(size_bytes >> 20))]
    return b"".join([*parts, packing.compress(b"\x90"), packing.flush()])


def _with_block(payload: bytes) -> bytes:
    """Return a file that has correct checksums, and whose only block has this payload."""
    file = io.BytesIO()
    writer = LogFileWriter(file, header((1,)))
    writer._frame(b"B", payload)
    writer.inventory.count(Block(0, 0, [_RECORD]))
    writer.end()
    return file.getvalue()


# The measured peak memory of a new process includes its parent's memory at the time of the fork. So
# a small process launches the process that is measured.
_MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def _checked(file: Path) -> tuple[int, str, float]:
    """Run `import-log --check` as a process; return its exit code, output and peak memory."""
    command = [sys.executable, "-m", "cli", "import-log", "--check", str(file)]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *command], capture_output=True, text=True, check=False
    )
    output, memory = done.stdout.rstrip().rpartition("\n")[::2]
    unit = 1 if sys.platform == "darwin" else 1024
    return done.returncode, output + done.stderr, int(memory) * unit


def test_a_small_file_that_expands_to_half_a_gigabyte_is_refused_with_little_memory(tmp_path):
    """Even a command that does nothing takes about 100 MB of memory."""
    bomb = tmp_path / "bomb.log"
    bomb.write_bytes(_with_block(_zeros(512 * 2**20)))
    assert bomb.stat().st_size < 2**20
    code, output, memory = _checked(bomb)
    assert code == 1
    assert "damaged at block 1: it decompresses to more than the limit of 16777216 bytes" in output
    assert memory < 300e6


def test_memory_holds_only_one_block_at_a_time_even_if_its_records_are_as_dense_as_possible(
    tmp_path,
):
    """An empty header takes three bytes in the file, but about eighty in memory."""
    headers = MAX_BLOCK_BYTES // 3 - 20
    several = b"\xdd" + headers.to_bytes(4, "big") + b"\x92\xa0\xc0" * headers
    file = tmp_path / "dense.log"
    with file.open("wb") as opened:
        writer = LogFileWriter(opened, header((3,)))
        for offset in range(3):
            block = b"\x93\x00" + bytes([offset]) + b"\x91\x94\x00\xc0\xc0" + several
            writer._frame(b"B", zlib.compress(block))
            writer.inventory.count(Block(0, offset, [_RECORD]))
        writer.end()
    code, output, memory = _checked(file)
    assert code == 0, output
    assert memory < 700e6


def test_the_largest_block_is_read_and_a_block_that_has_one_more_byte_is_refused():
    most = MAX_BLOCK_BYTES - 13
    value = bytes(most)
    _, (block,) = read(written([Block(0, 0, [LogRecord(0, None, value, ())])], (1,))[0])
    assert block.records[0].value == value
    larger = msgspec.msgpack.encode(Block(0, 0, [LogRecord(0, None, value + b"0", ())]))
    assert len(larger) == MAX_BLOCK_BYTES + 1
    with pytest.raises(LogFileError, match="block 1: it decompresses to more"):
        read(_with_block(zlib.compress(larger)))


@pytest.mark.parametrize(
    "damage", [slice(None, -1), slice(None, None)], ids=["truncated", "followed"]
)
def test_a_payload_that_is_not_exactly_one_zlib_stream_is_refused(damage):
    payload = zlib.compress(msgspec.msgpack.encode(Block(0, 0, [_RECORD])))
    wrong = payload[damage] if damage.stop else payload + b"x"
    with pytest.raises(LogFileError, match="block 1: it is not exactly one zlib stream"):
        read(_with_block(wrong))


def test_a_block_too_large_for_a_frame_is_split():
    records = [LogRecord(n, None, bytes(MAX_BLOCK_BYTES // 3), ()) for n in range(7)]
    data, end = written([Block(0, 0, records)], (7,))
    _, blocks = read(data)
    assert end.blocks == len(blocks) > 2
    assert [record for block in blocks for record in block.records] == records


def test_a_record_too_large_for_a_frame_is_left_out_and_reported():
    file = io.BytesIO()
    writer = LogFileWriter(file, header((3,)))
    large = LogRecord(0, None, bytes(MAX_BLOCK_BYTES), ())
    writer.write(Block(0, 0, [_RECORD, large, _RECORD]))
    writer.end()
    assert [str(each)[:30] for each in writer.left_out] == ["partition 0, offset 1, 16,777,"]
    found, blocks = read(file.getvalue())
    assert found.gaps == [Gap(0, 1, 1)]
    assert [block.offset for block in blocks] == [0, 2]


def test_a_record_with_the_largest_possible_number_of_headers_fits_into_a_block():
    """The record has 10 MiB in Kafka. It consists of empty headers, which have two bytes each."""
    headers = (("", None),) * (MAX_RECORD_BYTES // 2)
    _, (block,) = read(written([Block(0, 0, [LogRecord(0, None, None, headers)])], (1,))[0])
    assert len(block.records[0].headers) == MAX_RECORD_BYTES // 2


@pytest.mark.parametrize(
    "payload",
    [
        b'{"topic":"t","cluster_id":"c","exported_at":"","begins":[0],"ends":[0,0]}',
        b'{"topic":"t\xff"}',
        b'{"a":' + b"[" * 100_000,
        b"[]",
    ],
)
def test_a_file_whose_header_is_invalid_is_reported_as_damaged(payload):
    file = io.BytesIO()
    writer = LogFileWriter(file, header(()))
    file.seek(len(MAGIC))
    file.truncate()
    writer._digest = hashlib.sha256(MAGIC)
    writer._frame(b"H", payload)
    with pytest.raises(LogFileError, match="damaged at its header"):
        LogFile(io.BytesIO(file.getvalue()))


def test_a_file_of_a_different_format_version_is_refused():
    with pytest.raises(LogFileError, match="not a log file of this version"):
        read(small().replace(b"ledger log 1", b"ledger log 2"))


@pytest.mark.parametrize(
    ("blocks", "ends", "gaps"),
    [
        ([Block(0, 3, [_RECORD])], (4,), [Gap(0, 0, 2)]),
        ([Block(0, 0, [_RECORD]), Block(0, 2, [_RECORD])], (3,), [Gap(0, 1, 1)]),
        ([Block(0, 0, [_RECORD])], (3, 0), [Gap(0, 1, 2)]),
        ([], (0, 2), [Gap(1, 0, 1)]),
    ],
    ids=["the beginning", "the middle", "the end", "all"],
)
def test_offsets_that_have_no_record_are_gaps(blocks, ends, gaps):
    file, found = read(written(blocks, ends)[0])
    assert found == blocks
    assert file.gaps == gaps


def test_records_around_a_gap_become_two_blocks():
    assert as_blocks(1, [4, 5, 9], [_RECORD] * 3) == [
        Block(1, 4, [_RECORD, _RECORD]),
        Block(1, 9, [_RECORD]),
    ]
    assert as_blocks(1, [], []) == []


@pytest.mark.parametrize("offset", [0, 1, -1])
def test_the_writer_refuses_a_block_whose_offset_is_too_early(offset):
    writer = LogFileWriter(io.BytesIO(), header((9,)))
    writer.write(Block(0, 0, [_RECORD, _RECORD]))
    with pytest.raises(ValueError, match="expected 2 or a later offset"):
        writer.write(Block(0, offset, [_RECORD]))
