"""Injects an operator's mistakes: a worker with other rules, a deleted topic, a lost changelog.

After the ``with`` block of a fault, each topic exists again, and only the stage's own workers run.
"""

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient

from faults.kinds import Injected
from faults.refusals import await_end
from faults.stage import FaultStage, StageError
from faults.topic_settings import administer
from ledger.topics import TABLES, changelog_name

_CREATED_WITHIN_S: Final = 60.0
# A topic's name may contain an id, which would not fit into the line that reports a fault.
_SHOWN_CHARS: Final = 19


@contextmanager
def start_stranger(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Start a worker whose fold settings differ from the group's; the worker must not join."""
    stage.stranger.start_in_vain()
    await_end(stage, stage.stranger, "OtherRulesError", "LEDGER_FORGET_AFTER_DAYS")
    yield Injected((stage.stranger.label,), chance.uniform(0.0, 2.0))


@contextmanager
def delete_record(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Delete a topic whose name records the partition count or the log's id; create it again.

    Ingress answers 503 meanwhile. A worker may end, and may create the topic when it restarts.
    """
    names = stage.settings.names
    records = (names.made_with(""), names.log_record(""))

    async def delete(admin: AIOKafkaAdminClient) -> str:
        existing: list[str] = await admin.list_topics()
        topic = chance.choice(sorted(name for name in existing if name.startswith(records)))
        await admin.delete_topics([topic])
        return topic

    for worker in stage.workers:
        worker.expect_end()
    topic = administer(stage.settings, delete)
    yield Injected((topic[:_SHOWN_CHARS],), chance.uniform(1.0, 20.0))
    _create_topics(stage)
    for worker in stage.workers:
        worker.start_if_ended()


def _create_topics(stage: FaultStage) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "topics"],
        env=stage.environment,
        capture_output=True,
        text=True,
        timeout=_CREATED_WITHIN_S,
        check=False,
    )
    if done.returncode != 0:
        raise StageError(f"`plexy-ledger topics` did not create a topic again:\n{done.stdout}")


@contextmanager
def lose_changelog(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Delete a changelog's records from a broker's disk; the workers fold the log again.

    The fault also deletes the tables of the extra workers, because the changelog of these tables no
    longer exists.
    """
    broker, table = chance.choice(stage.brokers), chance.choice(TABLES)
    changelog = changelog_name(stage.settings.group_id, table)
    for worker in stage.workers:
        worker.stop()
    broker.kill()
    for folder in (broker.folder / "data").glob(f"{changelog}-*"):
        shutil.rmtree(folder)
    for extra in stage.extras:
        shutil.rmtree(extra.folder / "tables", ignore_errors=True)
    yield Injected((f"{table} changelog",), 0.0)
    stage.start_again(broker)
    for worker in stage.workers:
        worker.start()
