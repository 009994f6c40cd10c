"""Checks that the libraries still have the private names that the programs use.

Input: the modules that a program has imported, and this package's requirements, which pin each
library to one version. Output: an error that lists a library's missing names, and a log line with
the versions. Invariant: a check imports nothing, so it skips modules that the program does not use.

A new version of a library may rename any of these names without notice. The programs only write
some of the names, such as ``_fetch_max_wait_ms``. After a rename, such a write would succeed, but
have no effect.
"""

import dis
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from types import FunctionType, MappingProxyType
from typing import Final

import structlog

REMEDY: Final = (
    "install plexy-ledger into a new environment, with the versions in requirements/runtime.txt "
    "(docs/install.md)"
)

_PACKAGE: Final = "plexy-ledger"
_PINNED: Final = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?==([^\s;,]+)")

# The names that the programs read, write, override or replace, by library, and by module or class.
# If a class inherits a name, the name is listed under the class whose objects the programs use.
USED: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "aiokafka": {
            "aiokafka.admin.client:AIOKafkaAdminClient": "_client _send_request_to_node",
            "aiokafka.client:AIOKafkaClient": "_wait_on_metadata",
            "aiokafka.conn:AIOKafkaConnection": (
                "_sasl_plain_password _ssl_context _writer close connect send"
            ),
            "aiokafka.consumer.consumer:AIOKafkaConsumer": (
                "_coordinator _fetch_max_wait_ms _fetcher"
            ),
            "aiokafka.consumer.fetcher": "FetchResult MemoryRecords PartitionRecords",
            "aiokafka.consumer.fetcher:FetchResult": "_partition_records has_more",
            "aiokafka.consumer.fetcher:Fetcher": (
                "_create_fetch_waiter _fetch_task _pending_tasks _records _subscriptions close "
                "error_future"
            ),
            "aiokafka.consumer.fetcher:PartitionRecords": (
                "_consumer_record _records _records_iterator _tp _unpack_records next_fetch_offset"
            ),
            "aiokafka.consumer.group_coordinator:GroupCoordinator": (
                "_assignors _do_fetch_commit_offsets _group_instance_id _send_req coordinator_dead "
                "fetch_committed_offsets"
            ),
            "aiokafka.producer.message_accumulator:BatchBuilder": (
                "_build _builder _relative_offset _set_producer_state"
            ),
            "aiokafka.producer.message_accumulator:MessageAccumulator": (
                "_batches _pending_batches"
            ),
            "aiokafka.producer.producer:AIOKafkaProducer": (
                "_message_accumulator _sender _txn_manager"
            ),
            "aiokafka.protocol.api:Request": "_CLASSES",
            "aiokafka.protocol.commit:OffsetCommitRequest": (
                "_consumer_group _consumer_group_generation_id _consumer_id _topics"
            ),
            "aiokafka.protocol.group:HeartbeatRequest": "_generation_id _group _member_id",
            "aiokafka.protocol.group:JoinGroupRequest": "_group_protocols",
            "aiokafka.protocol.metadata:MetadataRequest": "_allow_auto_topic_creation build",
        },
        "aiohttp": {"aiohttp.web_protocol:RequestHandler": "handle_error log_exception"},
        "faust-streaming": {
            "faust.app.base:App": "_fetcher",
            "faust.assignor.partition_assignor:PartitionAssignor": "_tps_url",
            "faust.stores.rocksdb:Store": "_db_for_partition _dbs _open_for_partition offset_key",
            "faust.tables.manager:TableManager": "_update_channels",
            "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread": (
                "_consumer _create_worker_consumer _ensure_consumer _fetch_records"
            ),
            "faust.transport.drivers.aiokafka:Consumer": (
                "_add_gap _filter_tps_with_pending_acks _getmany _new_consumer_thread _new_offset "
                "_thread _wait_next_records"
            ),
            "faust.transport.drivers.aiokafka:Producer": "_producer",
        },
        "mode-streaming": {
            "mode.worker:Worker": "_crash _schedule_shutdown _sentinel_task override_logging"
        },
        "opentelemetry-exporter-otlp-proto-http": {
            # ``runtime.tracing`` filters the lines of this logger.
            "opentelemetry.exporter.otlp.proto.http.trace_exporter": "_logger",
        },
        "opentelemetry-sdk": {
            "opentelemetry.sdk._shared_internal:BatchProcessor": "_queue",
            "opentelemetry.sdk.trace.export:BatchSpanProcessor": "_batch_processor",
        },
        "rocksdict": {"rocksdict:RdictIter": "seek_for_prev status"},
        "uvicorn": {
            "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol": (
                "_start_asgi_task connections cycle expect_100_continue flow headers parser "
                "pipeline server_state timeout_keep_alive url"
            ),
        },
    }
)

_checked: set[str] = set()
_log = structlog.get_logger(__name__)


class MissingInternalError(ImportError):
    """A library lacks a name that the programs use; the message has the name and the remedy."""


def check() -> None:
    """Raise ``MissingInternalError`` if an imported module lacks a name.

    A module that uses such names calls this function after its imports, and before it replaces any
    name. Each class and module is checked once.
    """
    for library, places in USED.items():
        loaded = [each for each in places if each not in _checked and _module(each) in sys.modules]
        for place in loaded:
            if missing := list(missing_at(place, places[place])):
                raise MissingInternalError(f"{describe(library, missing)}: {REMEDY}")
            _checked.add(place)


def describe(library: str, missing: list[str]) -> str:
    """Return a sentence with a library's missing names, its version and the expected version."""
    return (
        f"{library} {installed(library)} has no {', '.join(missing)}, which {_PACKAGE} uses; "
        f"expected {library} {expected().get(library)}"
    )


def missing_at(place: str, names: str) -> Iterator[str]:
    """Yield the names that an imported module, or a class in it, lacks."""
    _, _, class_name = place.partition(":")
    module = sys.modules[_module(place)]
    owner = getattr(module, class_name, None) if class_name else module
    if owner is None:
        yield place
        return
    package, _, _ = _module(place).partition(".")
    yield from (f"{place}.{name}" for name in names.split() if not has(owner, name, package))


def has(owner: object, name: str, package: str) -> bool:
    """Return whether a module has a name, or whether a class or its instances have the name.

    An instance has the attributes that the methods of its class assign. A class or a base counts
    only if ``package`` defines it, because this project may have replaced a library's class with a
    subclass of its own.
    """
    if not isinstance(owner, type):
        return hasattr(owner, name)
    # A compiled class may give ``builtins`` as its module.
    packages = {package, "builtins"}
    theirs = [base for base in owner.__mro__ if base.__module__.partition(".")[0] in packages]
    return any(name in vars(base) or _assigns(base, name) for base in theirs)


def _assigns(base: type, name: str) -> bool:
    """Return whether a method of a class assigns an attribute."""
    # A class method keeps its function in ``__func__``.
    methods = (getattr(each, "__func__", each) for each in vars(base).values())
    return any(
        step.opname == "STORE_ATTR" and step.argval == name
        for method in methods
        if isinstance(method, FunctionType) and name in method.__code__.co_names
        for step in dis.get_instructions(method)
    )


def expected() -> dict[str, str]:
    """Return the version to which this package's requirements pin each of these libraries."""
    pins = filter(None, map(_PINNED.match, metadata.requires(_PACKAGE) or []))
    return {pin[1]: pin[2] for pin in pins if pin[1] in USED}


def installed(library: str) -> str | None:
    """Return the version of a library, or ``None`` if the library is not installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def log_versions() -> None:
    """Log the installed and the expected versions of the libraries that this program imported."""
    loaded = [each for each, places in USED.items() if {*map(_module, places)} & sys.modules.keys()]
    found = {library: installed(library) for library in loaded}
    pins = expected()
    wanted = {library: pins.get(library) for library in loaded}
    if found == wanted:
        _log.info("libraries", installed=found, expected=wanted)
    else:
        _log.warning("libraries", installed=found, expected=wanted, remedy=REMEDY)


def _module(place: str) -> str:
    return place.partition(":")[0]
