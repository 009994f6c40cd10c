"""A tenure gives up only its own writer."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import ProducerFenced
from faust.types import TP

from processors.engine.chunk import RevokedError
from processors.engine.writers import Writer, Writers
from runtime.kafka.sender import Epoch, Sender


async def test_fenced_work_of_a_former_tenure_keeps_the_writer_of_the_next_tenure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client: Any = SimpleNamespace()
    tested, tp = Writers(client, "group"), TP("topic", 0)
    former, following = (Writer(Sender(client), Epoch(number, 0)) for number in (1, 2))
    tenure: Any = SimpleNamespace(tp=tp)
    writers = iter([former])

    async def own_writer(_tenure: object) -> Writer:
        for writer in writers:
            tested._writers[tp] = writer
            return writer
        raise RevokedError

    async def work(_writer: Writer) -> None:
        # A rebalance takes the partition while the work waits, and gives it back at once.
        tested.forget()
        tested._writers[tp] = following
        raise ProducerFenced

    monkeypatch.setattr(tested, "_writer", own_writer)
    with pytest.raises(RevokedError):
        await tested.write(tenure, work)
    assert tested._writers[tp] is following
    assert following.epoch.given_up is None
    assert former.epoch.given_up is not None
