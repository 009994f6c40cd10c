"""The Faust app: topics, tables and agents, put together in the order of the data's path.

Input: ``WorkerSettings``. Output: an app that ``faust worker`` or ``processors.worker`` runs.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import AuthProtocol
from mode.supervisors import CrashingSupervisor

from ledger.anomalies import AnomalousOrders
from ledger.dialects import DIALECT
from ledger.topics import MAX_RECORD_BYTES, TABLES, TableName, TopicNames, changelog_name
from ledger.trust import MAX_HEADERS
from processors.engine.app import EngineApp
from processors.engine.databases import rocksdb_options, write_buffers_bytes
from processors.engine.disk import raise_file_limit, require_room, writable_folder
from processors.engine.effects import Fold, folding
from processors.engine.identity import claim, member
from processors.engine.lanes import work_in_lanes
from processors.engine.membership import SESSION_TIMEOUT_S
from processors.engine.recovery import Tables
from processors.engine.router import Router, worker_client
from processors.engine.scrub import Scrubber
from processors.engine.tables import ChunkTable
from processors.engine.transport import Consumer, Transport, chunked
from processors.engine.writers import Writers
from processors.metrics import WorkerMetrics, values
from processors.recent import LastSeconds
from processors.rejections import Rejections
from processors.settings import WorkerSettings
from processors.sums import PostedSums, Sums
from runtime.access import require_token
from runtime.addresses import in_url, listener
from runtime.fault import Fault
from runtime.kafka.administration import administration
from runtime.kafka.certificates import Side
from runtime.kafka.identities import require_expiration
from runtime.kafka.new_connections import NewConnections
from runtime.kafka.topic_looks import Examination, TopicsError
from runtime.kafka.topic_reader import TopicReader
from runtime.kafka.topic_states import most_bytes
from runtime.kafka.topics import ensure_topics, examine

if TYPE_CHECKING:
    from processors.engine.spans import Spans

log = structlog.get_logger(__name__)

# The group notices by missing heartbeats that a worker was killed. A worker learns of a rebalance
# from the answers to its heartbeats.
_HEARTBEAT_S: Final = 1.0
# The worker checks this often whether a writer's renewal is due.
_RENEWAL_EVERY_S: Final = 60.0
# The topics are checked this often. The worker ends if two checks in a row find the same fault.
_TOPICS_LOOKED_AT_EVERY_S: Final = 10.0
# The limit applies to each partition, and a backlog is fetched from all partitions at once. When
# the limit was 10 MiB, the size of the largest record, fetches took a third of a worker's memory. A
# record that is larger than the limit still arrives, because Kafka always sends the first batch
# completely.
_FETCH_BYTES: Final = 1024 * 1024


class Loss(NamedTuple):
    """A loss of records in the ledger's topics, or a risk of a loss.

    ``code`` is the name that the views give to the loss, and ``detail`` explains it in a sentence.
    """

    code: str
    detail: str


class LedgerApp(EngineApp):
    """A Faust app with the ledger's settings, topic names, metrics and tables.

    ``hops`` maps each topic to the name of the agent that folds it. ``loss`` is the loss that was
    found when the topics were last checked, if any.
    """

    consumer: Consumer
    router: Router
    settings: WorkerSettings
    tables: Tables
    names: TopicNames
    loss: Loss | None = None

    def setup(self, settings: WorkerSettings) -> None:
        """Set up the chunked transport, the tables, and the parts that the views need."""
        self.settings = settings
        self.names = settings.names
        self.kept_forever = self.names.webhooks
        self.metrics = WorkerMetrics()
        self.recent = LastSeconds()
        self.spans = _new_spans(settings)
        self.hops: dict[str, str] = {}
        self.writers = Writers(self, settings.group_id)
        self.transport = Transport(self.conf.broker_consumer, self)
        self.chunk_tables: dict[TableName, ChunkTable] = {
            name: self._new_table(name) for name in TABLES
        }
        # The views need the following parts.
        self.reader = TopicReader(settings)
        self.rejections = Rejections(self.reader, self.names, settings.partitions)
        self.posted = Sums(self, self.chunk_tables["payments"], settings.partitions, PostedSums)
        self.anomalies = Sums(
            self, self.chunk_tables["orders"], settings.partitions, AnomalousOrders
        )
        self.scrubber = Scrubber(self, self.chunk_tables.values(), settings.data_dir)
        for each in (
            self.posted.keep,
            self.anomalies.keep,
            self.scrubber.keep,
            self._count_seconds,
            self._stay_sure_of_membership,
            self._renew_writers,
            self._watch_topics,
            self._watch_connections,
        ):
            self.task(each)

    def take_place(self) -> str:
        """Check that the views' address is free, and claim the folder; return the worker's name.

        Raise ``SettingsError`` if another program has the address or the folder, or if a required
        token is missing.
        """
        # `faust worker --web-bind` may have overridden the settings.
        require_token("LEDGER_WEB_BIND", self.conf.web_bind, self.settings.api_token)
        # Without this check, a taken address would be noticed only after the worker had joined the
        # group, because Faust binds the address only then.
        variables = ("LEDGER_WEB_BIND", "LEDGER_WEB_PORT")
        listener(variables, self.conf.web_bind, self.conf.web_port, backlog=1).close()
        return claim(self.settings.data_dir)

    async def on_first_start(self) -> None:
        """Claim the folder, and create or check the topics.

        If a topic were missing, Faust would wait for it forever.
        """
        # The membership is static: a worker that restarts under the same name continues at once,
        # and does not wait for the end of its former session.
        name, address = self.take_place(), str(self.conf.canonical_url)
        self.conf.consumer_group_instance_id = member(name, address)
        report = await ensure_topics(self.settings)
        async with administration(self.settings) as admin:
            await require_expiration(admin)
        self._keep_tables_of(report.cluster_id)
        await super().on_first_start()

    def _keep_tables_of(self, cluster_id: str) -> None:
        """Give the tables a folder for this cluster and group.

        A table stores the offset up to which it has read its changelog. If the table then read the
        changelog of a different cluster or group, it would silently skip the records below this
        offset.
        """
        # Faust would prepend its own folder to a relative path.
        folder = (self.conf.appdir / f"{self.settings.group_id}@{cluster_id}").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self.conf.tabledir = folder

    def on_rebalance_start(self) -> None:
        """Count the rebalance."""
        super().on_rebalance_start()
        self.metrics.rebalances.inc()

    def on_rebalance_end(self) -> None:
        """Log which partitions this worker has, now that the tables are recovered."""
        super().on_rebalance_end()
        self.scrubber.want()
        mine = sorted(
            tp.partition for tp in self.consumer.assignment() if tp.topic == self.names.webhooks
        )
        log.info("ready", partitions=mine, views=str(self.conf.canonical_url))

    async def _count_seconds(self) -> None:
        while not self.should_stop:
            await self.sleep(1.0)
            self.recent.second_is_over(sum(values(self.metrics.records).values()))

    async def _stay_sure_of_membership(self) -> None:
        """Ask the group often enough that the views can rely on this worker's membership."""
        while not self.should_stop:
            await self.sleep(_HEARTBEAT_S)
            if self.tables.actives_ready:
                await self.consumer.is_member(self.consumer_generation_id)

    async def _renew_writers(self) -> None:
        while not self.should_stop:
            await self.sleep(_RENEWAL_EVERY_S)
            await self.writers.renew(self.consumer)

    async def _watch_topics(self) -> None:
        """End the worker if folding is no longer safe; log wrong settings of topics.

        Folding is unsafe if a topic is missing, was recreated, or has a different number of
        partitions, or if Kafka forgets a writer's identity too early. A single check of the topics
        is not enough, because a broker that has just started may not know all topics yet.
        """
        before: tuple[Fault, ...] = ()
        said: set[str] = set()
        while not self.should_stop:
            try:
                async with administration(self.settings) as admin:
                    seen = await examine(admin, self.settings)
                    await require_expiration(admin)
            except (TopicsError, KafkaError) as error:
                # If Kafka stays unreachable, the worker's writes will fail, which ends the worker.
                log.warning("topics not checked", reason=str(error))
                await self.sleep(_TOPICS_LOOKED_AT_EVERY_S)
                continue
            self.metrics.topic_faults.set(len(seen.fatal) + len(seen.faults))
            if seen.fatal and seen.fatal == before:
                raise TopicsError(seen.fatal[0])
            before = seen.fatal
            self._heed(seen)
            faults = {str(fault) for fault in (*seen.faults, *seen.deletions)}
            for fault in sorted(faults - said):
                log.warning("a topic is not as expected", fault=fault)
            said = faults
            await self.sleep(_TOPICS_LOOKED_AT_EVERY_S)

    def _heed(self, seen: Examination) -> None:
        """Adopt the topics' size limits, and note a loss of records, or the risk of a loss."""
        limits = (most_bytes(state.config) for state in seen.states)
        self.writers.bound(min(limits, default=MAX_RECORD_BYTES))
        risks = [each for each in seen.faults if not each.refuses_some]
        self.loss = None
        if seen.deletions:
            self.loss = Loss("records_deleted", str(seen.deletions[0]))
        elif risks:
            self.loss = Loss("topic_wrong", str(risks[0]))
        for topic, records in seen.deleted_records.items():
            self.metrics.deleted_records.labels(topic).set(records)

    async def _watch_connections(self) -> None:
        def show(side: Side, at_s: float) -> None:
            self.metrics.certificates.labels(side).set(at_s)

        await NewConnections(self.settings, show).watch()

    async def on_stop(self) -> None:
        """Let the chunks in progress end, then close the writers, and then the connections."""
        await super().on_stop()
        await self.writers.close()
        await self.reader.close()
        if self.spans is not None:
            await asyncio.to_thread(self.spans.close)

    def headers_read(self, topic: str) -> int:
        """Return ``MAX_HEADERS`` for the log of record if signatures are checked, else 0."""
        is_checked = self.settings.enforced_trust is not None and topic == self.names.webhooks
        return MAX_HEADERS if is_checked else 0

    def marking_header(self, topic: str) -> str | None:
        """Return the header that names a record's dialect; only the log of record has dialects."""
        return DIALECT if topic == self.names.webhooks else None

    def add_hop(self, name: str, table: TableName, fold: Fold) -> None:
        """Declare an agent that folds the chunks of a table's source topic into the table."""
        topic = self.names.source_of(table)
        self.hops[topic] = name
        folds = folding(self, name, self.chunk_tables[table], self.settings.partitions, fold)
        work = self.metrics.timed(name, folds)

        async def agent(chunks: Any) -> None:
            await work_in_lanes(chunks, work)

        self.agent(chunked(self, topic), name=name)(agent)

    def _new_table(self, name: TableName) -> ChunkTable:
        settings = self.settings
        table = ChunkTable(
            self,
            name=name,
            source=self.names.source_of(name),
            changelog_topic=chunked(self, changelog_name(settings.group_id, name)),
            partitions=settings.partitions,
            key_type=bytes,
            value_type=bytes,
            options=rocksdb_options(settings.table_memory_mb, settings.databases),
        )
        table.feeds = self.names.fed_by(name)
        self.tables.add(table)
        return table


def new_app(
    settings: WorkerSettings,
    *,
    worker_class: type[faust.Worker],
    middlewares: list[Any],
) -> LedgerApp:
    """Return the app, which has its transport and its tables, but no agents yet."""
    tables = writable_folder(settings.data_dir)
    raise_file_limit()
    write_buffers = write_buffers_bytes(settings.table_memory_mb)
    require_room(settings, write_buffers)
    app = LedgerApp(
        settings.group_id,
        # If Faust saw the environment, its own variables, such as BROKER_URL, would override these
        # settings.
        env={},
        broker=[f"kafka://{server}" for server in settings.bootstrap_servers],
        broker_credentials=_credentials(settings),
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=_HEARTBEAT_S,
        broker_request_timeout=30.0,
        broker_rebalance_timeout=30.0,
        broker_commit_interval=0.5,
        broker_max_poll_records=settings.chunk_records,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=_FETCH_BYTES,
        producer_acks=-1,
        producer_linger=0.0,
        producer_max_batch_size=512 * 1024,
        producer_max_request_size=MAX_RECORD_BYTES,
        producer_request_timeout=20.0,
        store="rocksdb://",
        datadir=str(tables),
        table_standby_replicas=settings.standby_replicas,
        topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication_factor,
        topic_disable_leader=True,
        # Faust creates no topics: `ensure_topics` does, and a worker may lack the right to do so.
        topic_allow_declare=False,
        agent_supervisor=CrashingSupervisor,
        key_serializer="raw",
        value_serializer="raw",
        Router=Router,
        TableManager=Tables,
        HttpClient=worker_client,
        Worker=worker_class,
        web_bind=settings.web_bind,
        web_host=in_url(settings.web_host),
        web_port=settings.web_port,
        web_tables_enabled=False,
        web_router_enabled=False,
        web_stats_enabled=False,
        web_graph_enabled=False,
        web_application_options={"middlewares": middlewares},
        worker_redirect_stdouts=False,
    )
    app.setup(settings)
    return app


def _new_spans(settings: WorkerSettings) -> "Spans | None":
    if settings.traces == "off":
        return None
    # Importing OpenTelemetry costs time and memory, so it is imported only if traces are on.
    from processors.engine.spans import Spans  # noqa: PLC0415
    from runtime.tracing import Tracing  # noqa: PLC0415

    return Spans(Tracing("plexy-ledger-worker"), settings.group_id)


def _credentials(settings: WorkerSettings) -> Any:
    files = settings.tls_files()
    # Faust passes these two values to aiokafka unchanged.
    context, password = cast("Any", files), cast("Any", settings.password())
    if settings.kafka_sasl_mechanism:
        credentials = SASLCredentials(
            username=settings.kafka_username,
            password=password,
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
        credentials.protocol = AuthProtocol.SASL_SSL if context else AuthProtocol.SASL_PLAINTEXT
        return credentials
    return SSLCredentials(context=context) if context else None
