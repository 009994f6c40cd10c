"""An operator renews certificates and passwords without a restart of any program.

The tests have a broker of their own, which requires a certificate and a password from each client,
and restarts with new certificates.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cli.kafka.broker import EmbeddedKafka, fetch
from cli.kafka.distribution import KafkaCache
from tests.ingest.conftest import PATH, SECRET, event, signed
from tests.kafka.harness import WorkerProcess, environment, free_port, run, until
from tests.kafka.programs import AuditProcess, ask_ingress, program, wait_ingress

pytestmark = pytest.mark.timeout(420)

USER, MECHANISM = "ledger", "SCRAM-SHA-512"
IN_DAYS = 3


class Secured:
    """A broker and the files of its clients, all of which can be renewed."""

    def __init__(self, folder: Path, cache: KafkaCache) -> None:
        self.cache, self.files = cache, folder / "files"
        self.files.mkdir()
        self.authority = trustme.CA()
        self.kafka = EmbeddedKafka(
            folder / "kafka",
            cache=cache,
            listeners={"SASL_SSL": 0},
            properties=self.properties(None),
        )
        self.write_files(None)
        self.password_file.write_text("the first password\n")

    @property
    def password_file(self) -> Path:
        return self.files / "password"

    def properties(self, expires: datetime | None) -> dict[str, str]:
        chain, key = pems(self.authority.issue_cert("127.0.0.1", not_after=expires))
        module = "org.apache.kafka.common.security.scram.ScramLoginModule"
        name = "listener.name.sasl_ssl"
        return {
            f"{name}.ssl.keystore.type": "PEM",
            f"{name}.ssl.keystore.certificate.chain": chain,
            f"{name}.ssl.keystore.key": key,
            f"{name}.ssl.truststore.type": "PEM",
            f"{name}.ssl.truststore.certificates": self.authority.cert_pem.bytes().decode(),
            f"{name}.ssl.client.auth": "required",
            f"{name}.sasl.enabled.mechanisms": MECHANISM,
            f"{name}.{MECHANISM.lower()}.sasl.jaas.config": f"{module} required;",
        }

    def write_files(self, expires: datetime | None) -> None:
        """Write the files of a client: the authority, a certificate and its key."""
        chain, key = pems(self.authority.issue_cert("ledger.test", not_after=expires))
        self.authority.cert_pem.write_to_path(self.files / "ca.pem")
        (self.files / "certificate.pem").write_text(chain)
        (self.files / "key.pem").write_text(key)

    def set_password(self, password: str) -> None:
        config = f"{MECHANISM}=[iterations=4096,password={password}]"
        command = fetch(self.cache).command(
            "kafka.admin.ConfigCommand",
            *("--bootstrap-server", self.kafka.bootstrap, "--alter", "--add-config", config),
            *("--entity-type", "users", "--entity-name", USER),
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def renew(self, expires: datetime | None = None) -> None:
        """Restart the broker with certificates of a new authority, and write its clients' files."""
        self.authority = trustme.CA()
        self.write_files(expires)
        self.kafka.stop()
        self.kafka._properties.update(self.properties(expires))
        self.kafka.start()

    def env(self, folder: Path, **more: Any) -> dict[str, str]:
        return environment(
            self.kafka.address("SASL_SSL"),
            folder / "ledger",
            webhook_secrets=SECRET,
            ingest_port=free_port(),
            ingest_metrics_port=free_port(),
            kafka_tls="true",
            kafka_ca_file=self.files / "ca.pem",
            kafka_certificate_file=self.files / "certificate.pem",
            kafka_key_file=self.files / "key.pem",
            kafka_sasl_mechanism=MECHANISM,
            kafka_username=USER,
            kafka_password_file=self.password_file,
            **more,
        )


def pems(certificate: trustme.LeafCert) -> tuple[str, str]:
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    key = load_pem_private_key(certificate.private_key_pem.bytes(), password=None)
    # Kafka reads keys only in PKCS #8.
    return chain.decode(), key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ).decode()


@pytest.fixture
def secured(kafka_cache: KafkaCache, tmp_path: Path) -> Iterator[Secured]:
    made = Secured(tmp_path, kafka_cache)
    with made.kafka:
        made.set_password("the first password")
        yield made


@contextmanager
def programs(
    env: dict[str, str], folder: Path
) -> Iterator[tuple[WorkerProcess, WorkerProcess, AuditProcess]]:
    """Run a worker, an ingress and an audit; yield them once worker and ingress are ready."""
    ingress, worker = program("ingest", env), program("worker", env)
    with worker, ingress, AuditProcess(env, folder / "audit") as audit:
        worker.wait_ready(120)
        wait_ingress(ingress)
        yield worker, ingress, audit


def accepted(env: dict[str, str], number: int) -> bool:
    body = event(
        f"evt_{number}",
        data={
            "id": f"pay_{number}",
            "amount": 5,
            "currency": "KZT",
            "status": "succeeded",
            "merchantReference": f"ord_{number}",
        },
    )
    url = f"http://127.0.0.1:{env['LEDGER_INGEST_PORT']}{PATH}"
    headers = signed(body)
    return httpx.post(url, content=body, headers=headers, trust_env=False, timeout=30).is_success


def metrics(url: str) -> dict[str, float]:
    text = httpx.get(url, trust_env=False).text
    found = re.findall(r"(?m)^\w+_certificate_expiry_timestamp_seconds(\{.*\}) (\S+)$", text)
    return {re.search('side="(\\w+)"', labels)[1]: float(at) for labels, at in found}  # type: ignore[index]


def test_programs_use_a_new_authority_certificate_and_password_without_a_restart(
    secured: Secured, tmp_path: Path
) -> None:
    env = secured.env(tmp_path)
    with programs(env, tmp_path) as (worker, ingress, audit):
        until(lambda: accepted(env, 1), within_s=30, what="the first delivery")
        until(lambda: worker.get("/orders/ord_1")[0] == 200, within_s=60, what="its order")

        secured.set_password("the second password")
        secured.password_file.write_text("the second password\n")
        secured.renew()

        until(lambda: accepted(env, 2), within_s=90, what=f"a delivery\n{ingress.tail()}")
        until(
            lambda: worker.get("/orders/ord_2")[0] == 200,
            within_s=90,
            what=f"its order\n{worker.tail()}",
        )
        audit.wait_rounds(within_s=90)
        assert all(each.process and each.process.poll() is None for each in (ingress, worker))
        for log in (ingress, worker, audit):
            assert "password\\n" not in log.log_file.read_text()
            assert "the second password" not in log.log_file.read_text()


def test_every_program_warns_of_a_certificate_that_expires_soon_and_names_the_remedy(
    secured: Secured, tmp_path: Path
) -> None:
    soon = datetime.now(UTC) + timedelta(days=IN_DAYS)
    secured.renew(soon)
    env = secured.env(tmp_path)
    with programs(env, tmp_path) as (worker, ingress, audit):
        for each in (worker, ingress, audit):
            named = until(
                lambda each=each: {
                    line["certificate"] for line in each.logged("certificate_expires")
                },
                within_s=60,
                what=f"a warning\n{each.tail()}",
            )
            assert any("LEDGER_KAFKA_CERTIFICATE_FILE" in name for name in named)
            assert any(name.startswith("the broker ") for name in named)
            assert all(line["remedy"] for line in each.logged("certificate_expires"))
        pages = (
            f"http://127.0.0.1:{env['LEDGER_INGEST_METRICS_PORT']}/metrics",
            f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}/metrics",
            f"http://127.0.0.1:{audit.env['LEDGER_AUDIT_PORT']}/metrics",
        )
        for page in pages:
            shown = metrics(page)
            assert set(shown) == {"ours", "brokers"}, page
            assert all(abs(at - soon.timestamp()) < 2 for at in shown.values()), page
    code, printed = run(env, "doctor", "worker")
    assert printed.count(f"expires at {soon:%Y-%m-%d}") == 2, printed
    assert code == 0, printed


def test_every_program_names_a_changed_password_while_its_old_connections_stay_open(
    secured: Secured, tmp_path: Path
) -> None:
    env = secured.env(tmp_path)
    with programs(env, tmp_path) as (worker, ingress, audit):
        audit.wait_rounds(1)
        secured.set_password("the second password")
        for each in (worker, ingress, audit):
            (line, *_) = until(
                lambda each=each: each.logged("new_connections_refused"),
                within_s=60,
                what=f"the refusal\n{each.tail()}",
            )
            assert "uthentication failed" in line["reason"]
            assert "LEDGER_KAFKA_PASSWORD_FILE" in line["remedy"]
        assert ask_ingress(env, "/readyz")[0] == 200
        secured.password_file.write_text("the second password\n")
        code, printed = run(env, "status", "--worker", f"http://127.0.0.1:{env['LEDGER_WEB_PORT']}")
        assert "Kafka does not" not in printed, (code, printed)


def test_a_key_that_does_not_fit_its_certificate_is_named_and_the_former_key_stays_in_use(
    secured: Secured, tmp_path: Path
) -> None:
    env = secured.env(tmp_path)
    with program("worker", env) as worker:
        worker.wait_ready(120)
        key = secured.files / "key.pem"
        former = key.read_text()
        key.write_text(pems(secured.authority.issue_cert("another.test"))[1])
        (line, *_) = until(
            lambda: worker.logged("credentials_not_renewed"), within_s=60, what="a warning"
        )
        assert "LEDGER_KAFKA_KEY_FILE" in line["reason"]
        key.write_text(former)
        assert worker.get("/readyz")[0] == 200
