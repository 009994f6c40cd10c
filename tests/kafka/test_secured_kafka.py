"""Every program logs in to a Kafka that requires TLS and a password, or says why it can't.

The tests create the certificates, for 127.0.0.1, and Kafka's own tool creates the SCRAM users.
"""

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
import trustme
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from faults.credentials import MECHANISM, USER, password_properties, pems, set_password
from ledger.topics import TABLES, all_topics, changelog_name
from runtime.kafka.connection import KafkaSettings
from tests.ingest.conftest import PATH, SECRET, event, signed
from tests.kafka.harness import (
    environment,
    free_port,
    group_of,
    names_of,
    read_topic,
    run,
    until,
)
from tests.kafka.programs import ask_ingress, program, wait_ingress
from tests.kafka.topics import ids_of

pytestmark = pytest.mark.timeout(300)

PASSWORD, WRONG = "pass=word of the tests", "some other word"
# `USER` may do everything. Each of the following users has only the rights that one program needs.
INGEST, WORKER, VERIFY, REJECTED, BACKUP = "ingest", "worker", "verify", "rejected", "backup"
STATUS = "status"
ACCOUNTS = "accounts"
STRANGER = "stranger"
AUTHORIZED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": f"User:ANONYMOUS;User:{USER}",
}
PROTOCOLS = {"SASL_SSL": 0, "SSL": 0, "SASL_PLAINTEXT": 0}
# A refused login must be an error within this time, even on a busy machine.
REFUSED_WITHIN_S = 60


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secured(
    kafka_cache: KafkaCache, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedKafka]:
    """Run a broker that has users, and a listener for each way to log in."""
    with EmbeddedKafka(
        tmp_path_factory.mktemp("kafka"),
        cache=kafka_cache,
        listeners=PROTOCOLS,
        properties=listener_properties(authority.issue_cert("127.0.0.1")) | AUTHORIZED,
    ) as broker:
        for user in (USER, INGEST, WORKER, VERIFY, REJECTED, BACKUP, STATUS, ACCOUNTS, STRANGER):
            set_password(kafka_cache, broker.bootstrap, user, PASSWORD)
        yield broker


def listener_properties(certificate: trustme.LeafCert) -> dict[str, str]:
    chain, key = pems(certificate)
    properties = password_properties("SASL_SSL") | password_properties("SASL_PLAINTEXT")
    for listener in ("sasl_ssl", "ssl"):
        properties |= {
            f"listener.name.{listener}.ssl.keystore.type": "PEM",
            f"listener.name.{listener}.ssl.keystore.certificate.chain": chain,
            f"listener.name.{listener}.ssl.keystore.key": key,
        }
    return properties


@pytest.fixture
def env(secured: EmbeddedKafka, authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    return settings(secured, authority, tmp_path, "SASL_SSL")


def settings(
    broker: EmbeddedKafka, authority: trustme.CA, folder: Path, protocol: str
) -> dict[str, str]:
    """Return the settings of a fresh ledger that logs in as the protocol requires."""
    given: dict[str, object] = {}
    if "SSL" in protocol.split("_"):
        given |= {"kafka_tls": "true", "kafka_ca_file": ca_file(authority, folder)}
    if protocol.startswith("SASL"):
        given |= {"kafka_sasl_mechanism": MECHANISM, "kafka_username": USER}
        given |= {"kafka_password": PASSWORD}
    return environment(
        broker.address(protocol),
        folder / "ledger",
        webhook_secrets=SECRET,
        ingest_port=free_port(),
        answer_within_s=4,
        **given,
    )


def ca_file(authority: trustme.CA, folder: Path) -> Path:
    file = folder / "authority.pem"
    authority.cert_pem.write_to_path(file)
    return file


def post(env: Mapping[str, str], body: bytes) -> httpx.Response:
    url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}{PATH}"
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.post(url, content=body, headers=signed(body))


def order(number: str) -> dict[str, object]:
    return {
        "id": f"pay_{number}",
        "amount": 990,
        "currency": "KZT",
        "status": "succeeded",
        "merchantReference": f"ord_{number}",
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_delivery_becomes_an_order_over_every_kind_of_listener(
    secured, authority, tmp_path, protocol
):
    env = settings(secured, authority, tmp_path, protocol)
    with program("topics", env) as topics:
        assert topics.wait(60) == 0, topics.tail()
    with program("topics", env, "--check") as topics:
        assert topics.wait(60) == 0, topics.tail()
    with program("ingest", env) as ingress, program("worker", env) as worker:
        worker.wait_ready(120)
        wait_ingress(ingress)
        answer = post(env, event("evt_1", data=order("1")))
        assert answer.status_code == 200, answer.text
        until(lambda: worker.get("/orders/ord_1")[0] == 200, within_s=60, what="the order")
        assert worker.get("/orders/ord_1")[1]["totals"]["KZT"]["paid"] == 990
        for running in (ingress, worker):
            assert running.process
            running.process.terminate()
            assert running.wait(20) == 0, running.tail()
    (record,) = read_topic(
        {**env, "LEDGER_KAFKA_BOOTSTRAP": secured.bootstrap}, names_of(env).webhooks
    )
    assert record.key == b"evt_1"
    assert_nothing_secret_in(tmp_path)


# These are Kafka's codes for kinds of resources, patterns of names, rights, and permissions.
TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID = 2, 3, 4, 5
LITERAL, PREFIXED = 3, 4
READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = 3, 4, 8, 10
DENY, ALLOW = 2, 3

Right = tuple[int, str, int, int]
# In Kafka's access rules, every cluster is called ``kafka-cluster``.
OF_CLUSTER: Right = (CLUSTER, "kafka-cluster", LITERAL, DESCRIBE_CONFIGS)


def rights_of(env: Mapping[str, str]) -> dict[str, list[Right]]:
    """Return the rights that docs/kafka.md tells the operator to give to each program."""
    names, group = names_of(env), group_of(env)
    record = names.made_with(int(env["LEDGER_PARTITIONS"]))
    changelogs = [changelog_name(group, table) for table in TABLES]
    read = [names.webhooks, names.events, names.payments, *changelogs]
    written = [names.events, names.payments, names.entries, names.orders, *changelogs]
    written = [*written, names.rejected]

    def topics(operation: int, *names: str) -> list[Right]:
        return [(TOPIC, name, LITERAL, operation) for name in names]

    records = [*topics(DESCRIBE, record), (TOPIC, names.log_record(""), PREFIXED, DESCRIBE)]
    all_records = [*records, (TOPIC, names.topics_record([]), PREFIXED, DESCRIBE)]
    return {
        INGEST: [
            *topics(WRITE, names.webhooks, names.rejected),
            *topics(DESCRIBE_CONFIGS, names.webhooks, names.rejected, record),
            *records,
        ],
        WORKER: [
            *topics(READ, *read, names.orders, names.rejected),
            *topics(WRITE, *written),
            *topics(DESCRIBE_CONFIGS, *written, names.webhooks),
            (GROUP, group, LITERAL, READ),
            (TRANSACTIONAL_ID, group, PREFIXED, WRITE),
            OF_CLUSTER,
            *all_records,
        ],
        VERIFY: [
            *topics(READ, *written, names.webhooks),
            *topics(DESCRIBE_CONFIGS, *written, names.webhooks),
            (GROUP, group, LITERAL, DESCRIBE),
            *all_records,
        ],
        REJECTED: [
            *topics(READ, names.rejected, names.webhooks),
            *topics(WRITE, names.rejected, names.webhooks),
            *topics(DESCRIBE, *written),
            *all_records,
            *topics(DESCRIBE_CONFIGS, *written, names.webhooks),
            (GROUP, group, LITERAL, DESCRIBE),
        ],
        BACKUP: topics(READ, names.webhooks),
        STATUS: [
            *topics(DESCRIBE, *written, names.webhooks),
            *topics(DESCRIBE_CONFIGS, *written, names.webhooks),
            (GROUP, group, LITERAL, DESCRIBE),
            *all_records,
        ],
        ACCOUNTS: [
            *topics(READ, names.entries),
            *topics(DESCRIBE, names.webhooks, names.events, names.payments),
            (GROUP, group, LITERAL, DESCRIBE),
        ],
    }


async def allow(
    broker: EmbeddedKafka, rights: Mapping[str, list[Right]], permission: int = ALLOW
) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        for user, given in rights.items():
            for kind, name, pattern, operation in given:
                request = CreateAclsRequest(
                    kind, name, pattern, f"User:{user}", "*", operation, permission
                )
                answer = await admin._send_to_controller(request)
                assert [code for code, _ in answer.creation_responses] == [0]
    finally:
        await admin.close()


def test_each_program_needs_only_the_rights_that_are_documented(secured, env, tmp_path):
    names = names_of(env)
    assert run(env, "topics")[0] == 0
    asyncio.run(allow(secured, rights_of(env)))
    as_ingest, as_worker, as_verify, as_rejected, as_backup, as_accounts = (
        env | {"LEDGER_KAFKA_USERNAME": user}
        for user in (INGEST, WORKER, VERIFY, REJECTED, BACKUP, ACCOUNTS)
    )
    plain = env | {"LEDGER_KAFKA_BOOTSTRAP": secured.bootstrap}
    fix = {"LEDGER_PAYMENT_FIELDS": "originalReference"}
    with program("ingest", as_ingest) as ingress:
        with program("worker", as_worker) as worker:
            worker.wait_ready(120)
            wait_ingress(ingress)
            assert post(env, event("evt_1", data=order("1"))).status_code == 200
            until(lambda: worker.get("/orders/ord_1")[0] == 200, within_s=60, what="the order")
            unread = {"payment_id": "x" * 600, "originalReference": "pay_1"}
            refund = event("evt_2", type="refund.succeeded", data=order("2") | unread)
            assert post(env, refund).status_code == 200
            until(lambda: read_topic(plain, names.rejected), within_s=60, what="the rejection")
        with program("worker", as_worker | fix) as worker:
            worker.wait_ready(120)
            code, output = run(as_rejected | fix, "rejected", "retry", "--all")
            assert (code, "1 put back" in output) == (0, True), output
            refunds = lambda: worker.get("/payments/pay_1")[1]["refunds"]  # noqa: E731
            until(refunds, within_s=60, what="the refund")
            as_status = env | {"LEDGER_KAFKA_USERNAME": STATUS}
            code, output = run(as_status, "status")
            assert (code, "all is well" in output) == (0, True), output
            page = httpx.get(f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}/metrics", trust_env=False)
            assert "plexy_ledger_worker_lag_records{" in page.text
            code, output = run(as_verify | fix, "verify")
            assert (code, "No difference" in output) == (0, True), output
    code, output = run(as_backup, "export-log", tmp_path / "log")
    assert (code, "3 in" in output) == (0, True), output
    code, output = run(as_accounts, "export", "--format", "csv")
    assert (code, "2 entries of" in output) == (0, True), output
    # A program can't write to a topic if it lacks the right to write to this topic.
    forbidden = {names.orders: as_ingest, names.webhooks: as_worker, names.entries: as_rejected}
    others = [(names.rejected, as_verify), (names.webhooks, as_backup)]
    others += [(names.entries, as_accounts)]
    for topic, settings in (*forbidden.items(), *others):
        with pytest.raises(TopicAuthorizationFailedError):
            asyncio.run(write(settings, topic))


def test_the_topic_checks_of_ingress_and_workers_need_only_the_rights_that_are_documented(
    secured, env
):
    assert run(env, "topics")[0] == 0
    asyncio.run(allow(secured, rights_of(env)))
    as_ingest, as_worker = (env | {"LEDGER_KAFKA_USERNAME": user} for user in (INGEST, WORKER))
    with program("ingest", as_ingest) as ingress, program("worker", as_worker) as worker:
        worker.wait_ready(120)
        wait_ingress(ingress)
        url = f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}/metrics"
        checked = f'plexy_ledger_worker_deleted_records{{topic="{names_of(env).webhooks}"}} 0.0'
        until(lambda: checked in httpx.get(url, trust_env=False).text, within_s=60, what="a check")
        assert not worker.logged("topics not checked")
        assert not ingress.logged("log_unavailable")


@pytest.mark.parametrize(
    ("user", "topic", "right", "said"),
    [
        (INGEST, "webhooks", DESCRIBE_CONFIGS, "give this user DescribeConfigs on the topic"),
        (INGEST, "rejected", DESCRIBE_CONFIGS, "give this user DescribeConfigs on the topic"),
        (INGEST, "record", DESCRIBE_CONFIGS, "give this user DescribeConfigs on the topic"),
        (INGEST, "record", DESCRIBE, "this user lacks the right Describe on them"),
        (INGEST, "log record", DESCRIBE, "this user lacks the right Describe on them"),
        (WORKER, "entries", DESCRIBE_CONFIGS, "give this user Describe and DescribeConfigs"),
        (WORKER, "record", DESCRIBE, "this user lacks the right Describe on them"),
        (WORKER, "log record", DESCRIBE, "this user lacks the right Describe on them"),
        (WORKER, "topics record", DESCRIBE, "this user lacks the right Describe on them"),
    ],
)
def test_if_a_user_lacks_a_right_the_topic_check_reports_this_right_in_one_line(  # noqa: PLR0917
    secured, env, user, topic, right, said
):
    """An operator denies the right to the program while the program runs."""
    assert run(env, "topics")[0] == 0
    asyncio.run(allow(secured, rights_of(env)))
    names = names_of(env)
    plain = env | {"LEDGER_KAFKA_BOOTSTRAP": secured.bootstrap}
    topics = [each.name for each in all_topics(names, group_of(env))]
    log_id, *ids = asyncio.run(ids_of(plain, *topics))
    records = {
        "record": names.made_with(int(env["LEDGER_PARTITIONS"])),
        "log record": names.log_record(log_id),
        "topics record": names.topics_record(ids),
    }
    name = records.get(topic) or getattr(names, topic)
    denied = {user: [(TOPIC, name, LITERAL, right)]}
    event = "log_unavailable" if user == INGEST else "topics not checked"
    with program(user, env | {"LEDGER_KAFKA_USERNAME": user}) as started:
        if user == INGEST:
            wait_ingress(started)
        else:
            started.wait_ready(120)
        asyncio.run(allow(secured, denied, DENY))

        def refusals() -> list[str]:
            lines = [*started.logged(event), *started.logged("the worker ends")]
            return [line["reason"] for line in lines if said in line["reason"]]

        (line, *_) = until(refusals, within_s=60, what=said)
        # Ingress does not see this topic, so ingress does not know the number in the topic's name.
        hidden = (user, topic, right) == (INGEST, "record", DESCRIBE)
        assert ("plexy.partitions-…" if hidden else name) in line
        assert "\n" not in line


def test_a_worker_that_may_not_read_transactional_id_expiration_ms_ends_and_names_the_right(
    secured, env
):
    assert run(env, "topics")[0] == 0
    lacking = [right for right in rights_of(env)[WORKER] if right != OF_CLUSTER]
    asyncio.run(allow(secured, {STRANGER: lacking}))
    for command in ("worker", "doctor worker"):
        code, output = run(env | {"LEDGER_KAFKA_USERNAME": STRANGER}, *command.split())
        assert code == 1, output
        assert "no broker shows transactional.id.expiration.ms to this user" in output
        assert "give this user DescribeConfigs on the cluster" in output


async def write(env: Mapping[str, str], topic: str) -> None:
    options = KafkaSettings.from_environment(env).client_options()
    async with AIOKafkaProducer(**options) as client:
        await client.send_and_wait(topic, b"value", b"key")


def refused(env: dict[str, str], why: str, tmp_path: Path) -> dict[str, str]:
    """Return settings that the broker, or the program itself, must refuse."""
    if why == "password":
        return env | {"LEDGER_KAFKA_PASSWORD": WRONG}
    if why == "user":
        return env | {"LEDGER_KAFKA_USERNAME": "nobody"}
    if why == "authority":
        folder = tmp_path / "other"
        folder.mkdir()
        return env | {"LEDGER_KAFKA_CA_FILE": str(ca_file(trustme.CA(), folder))}
    return {name: value for name, value in env.items() if name != "LEDGER_KAFKA_CA_FILE"}


REASONS = {
    "password": "(?i)authentication failed",
    "user": "(?i)authentication failed",
    "authority": "(?i)certificate verify failed",
    "no authority": "(?i)certificate verify failed",
}


def end_of(command: str, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a command that can't log in; return its exit code and its whole output."""
    with program(command, env) as started:
        code = started.wait(REFUSED_WITHIN_S)
        return code, started.log_file.read_text()


@pytest.mark.parametrize("why", REASONS)
@pytest.mark.parametrize("command", ["topics", "worker"])
def test_a_command_ends_with_one_line_if_its_login_fails(env, tmp_path, command, why):
    code, output = end_of(command, refused(env, why, tmp_path))
    assert code == 1, output
    (line,) = output.splitlines()
    assert env["LEDGER_KAFKA_BOOTSTRAP"] in line
    assert_nothing_secret_in(tmp_path)


@pytest.mark.parametrize("why", REASONS)
def test_the_line_says_why_the_login_failed(env, tmp_path, why):
    _, output = end_of("topics", refused(env, why, tmp_path))
    assert re.search(REASONS[why], output), output


@pytest.mark.parametrize("why", REASONS)
def test_an_ingress_whose_login_fails_is_not_ready_and_logs_the_reason(env, tmp_path, why):
    with program("ingest", refused(env, why, tmp_path)) as ingress:
        began = time.monotonic()
        until(
            lambda: ask_ingress(env, "/readyz")[0] == 503, within_s=REFUSED_WITHIN_S, what="a 503"
        )
        assert ask_ingress(env, "/healthz")[0] == 200
        answer = post(env, event("evt_1"))
        assert time.monotonic() - began < REFUSED_WITHIN_S
        assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
        until(
            lambda: re.search(REASONS[why], ingress.log_file.read_text()),
            within_s=REFUSED_WITHIN_S,
            what=f"a line with the reason:\n{ingress.tail()}",
        )
        # An operator may correct the cause, so ingress keeps trying until it is stopped.
        assert ingress.process
        assert ingress.process.poll() is None
        ingress.process.terminate()
        assert ingress.wait(20) == 0, ingress.tail()
    assert_nothing_secret_in(tmp_path)


def test_a_command_without_credentials_ends_in_bounded_time(env):
    credentials = ("_SASL_MECHANISM", "_USERNAME", "_PASSWORD")
    bare = {name: value for name, value in env.items() if not name.endswith(credentials)}
    code, output = end_of("topics", bare)
    assert code == 1, output
    (line,) = output.splitlines()
    assert env["LEDGER_KAFKA_BOOTSTRAP"] in line


def test_the_brokers_log_has_no_secret(secured, env, tmp_path):
    """The broker logs accepted and refused logins, and this test causes both."""
    for settings in (env, refused(env, "password", tmp_path)):
        end_of("topics", settings)
    text = secured.log_file.read_text()
    for secret in (PASSWORD, WRONG, SECRET):
        assert secret not in text


def assert_nothing_secret_in(folder: Path) -> None:
    logs = [file for file in folder.rglob("*.log") if "tables" not in file.parts]
    assert logs
    for file in logs:
        for secret in (PASSWORD, WRONG, SECRET):
            assert secret not in file.read_text(), file


def test_the_doctor_logs_in_over_tls_and_names_the_settings_that_a_refusal_concerns(env):
    assert run(env, "topics")[0] == 0
    code, printed = run(env, "doctor", "ingest", "worker")
    assert code == 0, printed
    assert "the brokers' clock is " in printed
    code, printed = run({**env, "LEDGER_KAFKA_PASSWORD": WRONG}, "doctor", "ingest", "worker")
    assert code == 1
    assert "Authentication failed" in printed
    assert "correct LEDGER_KAFKA_USERNAME, and LEDGER_KAFKA_PASSWORD or the file in " in printed
    for secret in (PASSWORD, WRONG):
        assert secret not in printed


def test_a_doctor_that_may_not_describe_the_cluster_says_that_it_can_t_read_the_brokers_clock(
    secured, env
):
    assert run(env, "topics")[0] == 0
    asyncio.run(allow(secured, rights_of(env)))
    code, printed = run({**env, "LEDGER_KAFKA_USERNAME": WORKER}, "doctor", "worker")
    assert code == 0, printed
    assert "the brokers' clock can't be read (ClusterAuthorizationFailedError" in printed
    assert "all 9 topics are as expected" in printed
    code, printed = run({**env, "LEDGER_KAFKA_USERNAME": INGEST}, "doctor", "ingest")
    assert code == 0, printed
    assert "all 2 topics are as expected" in printed
