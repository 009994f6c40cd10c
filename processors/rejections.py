"""What was rejected, as a worker knows it for its views.

In: ``plexy.rejected``, read once from its start, and from then on only what is new. Out: the
quarantine: what stands in that topic stays, and whether an item was put back a later record says.
"""

import asyncio
from typing import Final

from ledger.quarantine import Item, Quarantine
from ledger.topics import TopicNames
from processors.topic_reader import TopicReader, in_time

_AT_A_TIME: Final = 2_000


class Rejections:
    """The quarantine as far as its topic was read."""

    def __init__(self, reader: TopicReader, names: TopicNames, partitions: int) -> None:
        self._reader = reader
        self._topic = names.rejected
        self._partitions = partitions
        self._quarantine = Quarantine(names)
        self._read: dict[int, int] = {}
        self._lock = asyncio.Lock()

    async def now(self) -> Quarantine:
        """Read what is new, and return all of it; where time is short, the next one goes on."""
        # With the wait for those who came first.
        async with in_time(f"{self._topic} up to its end"), self._lock:
            return await self._read_on()

    async def _read_on(self) -> Quarantine:
        topic, partitions = self._topic, self._partitions
        ends = await self._reader.ends(topic, partitions)
        if not self._read:
            self._read = dict(await self._reader.begins(topic, partitions))
        for partition, end in ends.items():
            while self._read[partition] < end:
                start = self._read[partition]
                upto = min(start + _AT_A_TIME, end)
                window = {partition: start}, {partition: upto}
                self._quarantine.read(await self._reader.between(topic, *window))
                self._read[partition] = upto
        return self._quarantine

    async def of(self, key: bytes) -> list[Item]:
        """Return what was rejected under an event's id, the newest last."""
        return (await self.now()).of(key)
