"""The topics have the names, the cleanup policies and the retention that the design requires."""

import pytest

from ledger.topics import MAX_RECORD_BYTES, TABLES, Topic, TopicNames, all_topics, changelog_name

WEEK_MS = 7 * 24 * 3600 * 1000


def test_the_topics_have_the_names_that_the_design_requires():
    names = TopicNames()
    assert [names.webhooks, names.rejected] == ["plexy.webhooks", "plexy.rejected"]
    assert [names.events, names.payments] == ["ledger.events", "ledger.payments"]
    assert [names.entries, names.orders] == ["ledger.entries", "ledger.orders"]


def test_every_topic_name_except_the_names_of_changelogs_starts_with_the_prefix():
    plain, prefixed = all_topics(TopicNames(), "app"), all_topics(TopicNames("shop2."), "app")
    ours = [topic.name for topic in plain if not topic.name.endswith("-changelog")]
    assert [topic.name for topic in prefixed][: len(ours)] == [f"shop2.{name}" for name in ours]
    assert prefixed[len(ours) :] == plain[len(ours) :]


def test_each_ledger_version_has_its_own_names_for_the_topics_that_are_derived_from_the_log():
    first, second = all_topics(TopicNames(), "g"), all_topics(TopicNames("", 2), "g-v2")
    both = {topic.name for topic in first} & {topic.name for topic in second}
    assert both == {"plexy.webhooks", "plexy.rejected"} == set(TopicNames().shared)
    assert TopicNames("a.", 12).entries == "a.ledger.entries.v12"
    assert [topic.config() for topic in first] == [topic.config() for topic in second]


def test_the_changelogs_are_named_according_to_fausts_rule():
    assert changelog_name("ledger-v1", "seen") == "ledger-v1-seen-changelog"
    names = [topic.name for topic in all_topics(TopicNames(), "ledger-v1")]
    assert names[-3:] == [f"ledger-v1-{table}-changelog" for table in TABLES]
    assert TABLES == ("seen", "payments", "orders")


@pytest.mark.parametrize(
    ("name", "policy", "retention_ms"),
    [
        ("plexy.webhooks", "delete", -1),
        ("plexy.rejected", "delete", -1),
        ("ledger.events", "delete", WEEK_MS),
        ("ledger.payments", "delete", WEEK_MS),
        ("ledger.entries", "delete", -1),
        ("ledger.orders", "compact", -1),
        ("app-seen-changelog", "compact", -1),
        ("app-payments-changelog", "compact", -1),
        ("app-orders-changelog", "compact", -1),
    ],
)
def test_every_topic_has_the_cleanup_policy_and_the_retention_that_the_design_requires(
    name, policy, retention_ms
):
    (topic,) = [topic for topic in all_topics(TopicNames(), "app") if topic.name == name]
    assert (topic.cleanup_policy, topic.retention_ms) == (policy, retention_ms)


def test_there_are_exactly_nine_topics_with_distinct_names():
    names = [topic.name for topic in all_topics(TopicNames(), "app")]
    assert len(names) == len(set(names)) == 9


def test_the_configuration_uses_kafkas_own_names_of_settings():
    topic = Topic(name="t", cleanup_policy="compact", retention_ms=5)
    assert topic.config(2) == {
        "cleanup.policy": "compact",
        "retention.ms": "5",
        "retention.bytes": "-1",
        "delete.retention.ms": "86400000",
        "max.message.bytes": str(MAX_RECORD_BYTES),
        "message.timestamp.type": "CreateTime",
        "message.timestamp.before.max.ms": "9223372036854775807",
        "message.timestamp.after.max.ms": "3600000",
        "compression.type": "producer",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": "2",
    }
    assert Topic(name="t").config()["retention.ms"] == "-1"


def test_each_setting_is_unique_and_has_a_reason_and_a_valid_initial_value():
    for topic in all_topics(TopicNames(), "app"):
        settings = topic.settings(2)
        assert len({setting.name for setting in settings}) == len(settings)
        assert all(setting.why and setting.is_right(setting.value) for setting in settings)
