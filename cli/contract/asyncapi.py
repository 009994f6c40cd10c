"""Builds the AsyncAPI document: each topic's key, headers, settings, guarantee and real examples.

The topics' settings come from ``ledger.topics``. The document does not repeat the schemas; it
refers to their files.
"""

from importlib.metadata import version
from typing import Any, Final

import msgspec

from cli.contract.examples import examples
from cli.contract.schemas import VERSIONS, Json, schema_file
from ledger.envelope import MAX_ID_BYTES
from ledger.rejected import RejectedRecord
from ledger.topics import Topic, TopicNames, all_topics

FILE: Final = "asyncapi.json"

# AsyncAPI's binding for Kafka can express a topic's clean-up policy, and these settings.
_TOPIC_SETTINGS: Final = (
    "retention.ms",
    "retention.bytes",
    "max.message.bytes",
    "delete.retention.ms",
)
_BINDING: Final = "0.5.0"
_DELIVERY: Final = (
    "**At least once.** After a crash, the same bytes may be written again under the same key, and "
    "an older document may briefly follow a newer one. The last record of a key is the valid one. "
    "**In order by key.** All records of a key are in one partition, chosen from the key's bytes "
    "by Kafka's default partitioner (murmur2). There are no transactions, so `isolation.level` "
    "does not matter."
)
_NAMES: Final = (
    "The topics have these names if `LEDGER_VERSION` is 1 and `LEDGER_TOPIC_PREFIX` is not set. "
    "The prefix precedes every name. If `LEDGER_VERSION` is 2, the names of `ledger.orders` and "
    "`ledger.entries` end in `.v2`, whatever the version of their schemas is."
)


def document() -> Json:
    """Return the document."""
    names = TopicNames()
    topics = {topic.name: topic for topic in all_topics(names, "")}
    return {
        "asyncapi": "3.0.0",
        "id": "urn:plexy-ledger",
        "info": {
            "title": "plexy-ledger events",
            "version": version("plexy-ledger"),
            "description": f"What the ledger publishes in Kafka.\n\n{_DELIVERY}\n\n{_NAMES}",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:19092",
                "protocol": "kafka",
                "description": "The embedded Kafka of `plexy-ledger run`.",
            },
            "production": {
                "host": "kafka.example.com:9093",
                "protocol": "kafka-secure",
                "description": "An example of a Kafka with TLS and SASL, which `LEDGER_KAFKA_TLS` "
                "and `LEDGER_KAFKA_SASL_MECHANISM` set.",
                "security": [{"$ref": "#/components/securitySchemes/scram"}],
            },
        },
        "channels": {
            "orders": _channel(
                topics[names.orders],
                "The documents of the orders; each change of an order writes the whole document "
                "again. A record without a value (a tombstone) means that all payments have moved "
                "to other orders, and that the order is gone.",
                ("orderDocument", "orderTombstone"),
            ),
            "entries": _channel(
                topics[names.entries],
                "Balanced double-entry postings. An entry never changes and is never removed; a "
                "correction is a reversal and a new entry. Count each entry once, by its id.",
                ("entry",),
            ),
            "rejected": _channel(
                topics[names.rejected],
                "Bytes that the ledger keeps but does not count, with the reason. A later record "
                "may say that the bytes were put back. The same rejection may be written several "
                "times.",
                ("rejection", "putBack"),
            ),
        },
        "operations": {
            "publishOrders": _operation("orders", ("orderDocument", "orderTombstone")),
            "publishEntries": _operation("entries", ("entry",)),
            "publishRejected": _operation("rejected", ("rejection", "putBack")),
        },
        "components": {
            "messages": _messages(names),
            "securitySchemes": {"scram": {"type": "scramSha512"}},
        },
    }


def _channel(topic: Topic, description: str, messages: tuple[str, ...]) -> Json:
    # The binding requires numbers where Kafka has strings.
    set_to = topic.config()
    config: Json = {name: int(set_to[name]) for name in _TOPIC_SETTINGS if name in set_to}
    return {
        "address": topic.name,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topicConfiguration": {"cleanup.policy": [topic.cleanup_policy]} | config,
                "bindingVersion": _BINDING,
            }
        },
    }


def _operation(channel: str, messages: tuple[str, ...]) -> Json:
    path = f"#/channels/{channel}"
    return {
        "action": "send",
        "channel": {"$ref": path},
        "description": "Each record is written at least once, always with the same key and bytes.",
        "messages": [{"$ref": f"{path}/messages/{name}"} for name in messages],
    }


def _messages(names: TopicNames) -> Json:
    made = examples()
    chosen = {order.status: order for order in reversed(made.orders)}
    order_key = _key("the order's id, UTF-8", maxLength=MAX_ID_BYTES)
    rejected_key = _key("the event's id, or the bytes' SHA-256 in hex if no id could be read")
    reversals = [entry for entry in made.entries if entry.reverses]
    return {
        "orderDocument": {
            **_valued("An order as it is now", names.orders, order_key),
            "examples": [
                _example(status, f"key {order.order_id}", order)
                for status, order in sorted(chosen.items())
            ],
        },
        "orderTombstone": {
            "summary": "The order is gone",
            "payload": {"type": "null", "description": "no value, not the text `null`"},
            "bindings": order_key,
        },
        "entry": {
            **_valued(
                "The postings of one event, or their reversal",
                names.entries,
                _key("`entry_id`, UTF-8"),
            ),
            "examples": [
                _example(name, f"key {entry.entry_id}", entry)
                for name, entry in [
                    ("success", next(each for each in made.entries if each.refund_id is None)),
                    ("refund", next(each for each in made.entries if each.refund_id)),
                    *[("reversal", each) for each in reversals[:1]],
                ]
            ],
        },
        "rejection": _raw(
            "Bytes that are not counted",
            _header_schema(names, "RejectionHeaders"),
            rejected_key,
            made.rejection,
        ),
        "putBack": _raw(
            "An earlier rejection with the same key and bytes was put back",
            _header_schema(names, "PutBackHeaders"),
            rejected_key,
            made.put_back,
        ),
    }


# This is the only header that a record of an order or an entry may have. The record may also have
# no header. Readers may ignore the header.
_TRACED: Final[Json] = {
    "type": "object",
    "properties": {
        "traceparent": {
            "type": "string",
            "description": "the trace of the last delivery that caused the record, if that "
            "delivery was traced (W3C Trace Context)",
        }
    },
}


def _valued(summary: str, topic: str, key: Json) -> Json:
    return {
        "summary": summary,
        "description": "JSON in UTF-8.",
        "headers": _TRACED,
        "payload": {"$ref": f"./{schema_file(topic)}"},
        "bindings": key,
        "x-schema-version": VERSIONS[topic],
    }


def _header_schema(names: TopicNames, kind: str) -> Json:
    return {"$ref": f"./{schema_file(names.rejected)}#/$defs/{kind}"}


def _raw(summary: str, headers: Json, key: Json, record: RejectedRecord) -> Json:
    record_key, body, texts = record
    return {
        "summary": summary,
        "contentType": "application/octet-stream",
        "headers": headers,
        "payload": {
            "type": "string",
            "format": "binary",
            "description": "the bytes as received, which need not be JSON or UTF-8",
        },
        "bindings": key,
        "examples": [
            {
                "name": "sample",
                "summary": f"key {record_key.decode()}",
                "headers": {name: value.decode() for name, value in texts},
                "payload": body.decode(),
            }
        ],
    }


def _key(description: str, **keywords: Any) -> Json:
    key = {"type": "string", "minLength": 1, **keywords, "description": description}
    return {"kafka": {"key": key, "bindingVersion": _BINDING}}


def _example(name: str, summary: str, value: msgspec.Struct) -> Json:
    return {"name": name, "summary": summary, "payload": _as_read(value)}


def _as_read(value: msgspec.Struct) -> Json:
    decoded: Json = msgspec.json.decode(msgspec.json.encode(value))
    return decoded
