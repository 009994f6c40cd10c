"""Lists every kind of fault, and implements the kinds that have no module of their own.

A fault lasts until its ``with`` block ends. After that, the stage works again.
"""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from faults import folders, group, mistakes, topic_settings
from faults.credentials import Credentials
from faults.disk import SmallDisk
from faults.folders import DOWN_AT_MOST_S, exhaust
from faults.kinds import FaultKind, Inject, Injected
from faults.program import ProgramUnderFault
from faults.proxy import Network
from faults.stage import FaultStage

# Other workers may need this long to take over a killed worker's partitions, because the session of
# the killed worker lasts 10 s.
TAKEN_OVER_WITHIN_S: Final = 15.0


@contextmanager
def _kill_worker(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Kill a worker; restart it at once, or after others may have taken over its partitions."""
    worker = chance.choice(stage.workers)
    worker.kill()
    yield Injected((worker.label,), chance.choice([0.0, 0.0, 1.0, 15.0]))
    worker.start()


@contextmanager
def _kill_worker_for_good(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Kill a worker, and do not restart it until other workers fold its partitions."""
    worker = chance.choice(stage.workers)
    worker.kill()
    yield Injected((worker.label,), DOWN_AT_MOST_S, take_over=True)
    worker.start()


@contextmanager
def _stop_worker(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    worker = chance.choice(stage.workers)
    worker.stop()
    yield Injected((worker.label,), chance.choice([0.0, 0.0, 5.0]))
    worker.start()


@contextmanager
def _freeze_worker(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Freeze a worker for less than its session (10 s), or for so long that others take over.

    The worker does not have to end: Kafka refuses its late writes, and the worker then drops its
    unfinished chunks of records.
    """
    worker = chance.choice(stage.workers)
    worker.freeze()
    yield Injected((worker.label,), chance.choice(stage.pauses.worker_frozen))
    worker.go_on()


@contextmanager
def _lose_tables(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Kill a worker and delete its tables; after its restart, it restores them from changelogs."""
    worker = chance.choice(stage.workers)
    worker.kill()
    shutil.rmtree(worker.folder / "tables", ignore_errors=True)
    yield Injected((worker.label,), 0.0)
    worker.start()


@contextmanager
def _join_and_leave(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Start one or two extra workers; later, end them one after the other."""
    joining = chance.sample(stage.extras, chance.choice([1, 2]))
    for each in joining:
        each.start()
    yield Injected(
        tuple(sorted(each.label for each in joining)), chance.uniform(*stage.pauses.worker_joined)
    )
    for each in joining:
        _end_somehow(each, chance)


@contextmanager
def _rebalance_repeatedly(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Change the group several times, each time before the previous rebalance has settled."""
    hit = set()
    for _ in range(chance.randint(3, 5)):
        each = chance.choice(stage.extras)
        each.start()
        time.sleep(chance.uniform(0.2, 5.0))
        # The freeze may coincide with the assignment of the partitions.
        frozen = chance.choice(stage.workers)
        frozen.freeze()
        time.sleep(chance.choice([0.1, 0.5, 1.5]))
        frozen.go_on()
        _end_somehow(each, chance)
        hit |= {each.label, frozen.label}
    yield Injected(tuple(sorted(hit)), chance.uniform(0.0, 0.5))


@contextmanager
def _kill_ingest(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    stage.ingest.kill()
    yield Injected((stage.ingest.label,), chance.uniform(0.0, 2.0))
    stage.ingest.start()


@contextmanager
def _stop_ingest(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    stage.ingest.stop()
    yield Injected((stage.ingest.label,), chance.uniform(0.0, 1.0))
    stage.ingest.start()


@contextmanager
def _freeze_ingest(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    stage.ingest.freeze()
    yield Injected((stage.ingest.label,), chance.uniform(1.0, 6.0))
    stage.ingest.go_on()


@contextmanager
def _kill_broker(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    broker = chance.choice(stage.brokers)
    broker.kill()
    yield Injected((broker.folder.name,), chance.uniform(0.0, 5.0))
    stage.start_again(broker)


@contextmanager
def _stop_broker(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    broker = chance.choice(stage.brokers)
    broker.stop()
    yield Injected((broker.folder.name,), chance.uniform(0.0, 3.0))
    stage.start_again(broker)


@contextmanager
def _freeze_broker(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    broker = chance.choice(stage.brokers)
    broker.pause()
    yield Injected((broker.folder.name,), chance.uniform(1.0, 12.0))
    broker.resume()


@contextmanager
def _lose_disk(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Kill a broker and delete its data; after its restart, it copies the other brokers' data."""
    broker = chance.choice(stage.brokers)
    broker.kill()
    broker.erase()
    yield Injected((broker.folder.name,), chance.uniform(0.0, 5.0))
    stage.start_again(broker)


@contextmanager
def _change_password(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Change the brokers' password, cut all connections, then give the password to the programs."""
    password = f"password {chance.getrandbits(32):x}"
    stage.set_password(password)
    # The time of the fault starts here, because Kafka's tool that sets the password starts slowly.
    since_s = time.monotonic()
    for proxy in stage.proxies:
        proxy.network = Network.REFUSING
        proxy.network = Network.GOOD
    yield Injected(("every program",), chance.uniform(1.0, 6.0), since_s=since_s)
    _credentials(stage).password_file.write_text(password)


@contextmanager
def _renew_certificates(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
    """Replace all certificates and their authority, and afterwards restart the brokers."""
    _credentials(stage).renew_certificates()
    yield Injected(("every broker",), chance.uniform(0.0, 5.0))
    for broker in stage.brokers:
        broker.stop()
        stage.start_again(broker)


def _credentials(stage: FaultStage) -> Credentials:
    if stage.credentials is None:
        raise ValueError("the brokers of this stage demand no credentials")
    return stage.credentials


def _network(network: Network, longest_s: float) -> Inject:
    @contextmanager
    def inject(stage: FaultStage, chance: random.Random) -> Iterator[Injected]:
        number = chance.randrange(len(stage.proxies))
        stage.proxies[number].network = network
        yield Injected((stage.brokers[number].folder.name,), chance.uniform(1.0, longest_s))
        stage.proxies[number].network = Network.GOOD

    return inject


def _end_somehow(program: ProgramUnderFault, chance: random.Random) -> None:
    if chance.random() < 0.5:  # noqa: PLR2004 - one or the other
        program.kill()
    else:
        program.stop()


_DISK_FULL: Final = exhaust(SmallDisk.fill, "make room there", "MiB free")
_NO_INODES: Final = exhaust(SmallDisk.use_up_inodes, "delete files there", "inode")
_COMMITS_AHEAD: Final = group.reset_commits(lambda _chance, _commit, end: end)
_COMMITS_BACK: Final = group.reset_commits(lambda chance, commit, _end: chance.randint(0, commit))

KINDS: Final[tuple[FaultKind, ...]] = (
    FaultKind("worker killed", "worker", _kill_worker),
    FaultKind("worker killed for good", "worker", _kill_worker_for_good, take_over=True),
    FaultKind("worker's disk full", "worker", _DISK_FULL, take_over=True, takes_disk=True),
    FaultKind("worker's inodes used up", "worker", _NO_INODES, take_over=True, takes_disk=True),
    FaultKind("worker's table damaged", "worker", folders.damage_table, alone=True),
    FaultKind("worker's folder copied", "worker", folders.run_copy, alone=True),
    FaultKind("worker's tables older", "worker", folders.restore_older_tables),
    FaultKind(
        "worker's disk read-only",
        "worker",
        folders.make_read_only,
        take_over=True,
        takes_disk=True,
    ),
    FaultKind("worker's files limited", "worker", folders.lower_file_limit, take_over=True),
    FaultKind("worker stopped", "worker", _stop_worker),
    FaultKind("worker frozen", "worker", _freeze_worker),
    FaultKind("worker's tables lost", "worker", _lose_tables),
    FaultKind("worker joins and leaves", "worker", _join_and_leave),
    FaultKind("worker's clock steps", "worker", group.step_clock, takes_clock=True),
    FaultKind("commits set ahead", "worker", _COMMITS_AHEAD, alone=True),
    FaultKind("commits set back", "worker", _COMMITS_BACK, alone=True),
    FaultKind(
        "worker's clock ahead",
        "worker",
        group.set_workers_clock_ahead,
        alone=True,
        takes_clock=True,
    ),
    FaultKind("worker of other rules", "worker", mistakes.start_stranger, alone=True),
    FaultKind("rebalances in a row", "worker", _rebalance_repeatedly),
    FaultKind("ingress killed", "ingress", _kill_ingest),
    FaultKind("ingress stopped", "ingress", _stop_ingest),
    FaultKind("ingress frozen", "ingress", _freeze_ingest),
    FaultKind("ingress' clock wrong", "ingress", group.set_ingests_clock, takes_clock=True),
    FaultKind("broker killed", "broker", _kill_broker, restarts_broker=True),
    FaultKind("broker stopped", "broker", _stop_broker, restarts_broker=True),
    FaultKind("broker frozen", "broker", _freeze_broker),
    FaultKind(
        "broker's disk lost", "broker", _lose_disk, takes_replicas=True, restarts_broker=True
    ),
    FaultKind(
        "replicas too few",
        "broker",
        topic_settings.require_more_replicas,
        alone=True,
        takes_replicas=True,
        restarts_broker=True,
    ),
    # No program can start while only one side has the new credentials.
    FaultKind("password changed", "broker", _change_password, alone=True, takes_credentials=True),
    FaultKind(
        "certificates renewed",
        "broker",
        _renew_certificates,
        alone=True,
        takes_credentials=True,
        restarts_broker=True,
    ),
    # These kinds have the layer ``broker``, so that no other fault of the brokers happens at the
    # same time. A setting can be changed only while the brokers answer.
    FaultKind("compression changed", "broker", topic_settings.change_compression),
    FaultKind("settings changed", "broker", topic_settings.change_settings, alone=True),
    FaultKind("message size lowered", "broker", topic_settings.lower_max_message_bytes, alone=True),
    FaultKind("record topic deleted", "broker", mistakes.delete_record, alone=True),
    FaultKind(
        "changelog lost", "broker", mistakes.lose_changelog, alone=True, restarts_broker=True
    ),
    FaultKind("network slow", "network", _network(Network.SLOW, 8.0)),
    FaultKind("network silent", "network", _network(Network.SILENT, 12.0)),
    FaultKind("network refuses", "network", _network(Network.REFUSING, 6.0)),
)
