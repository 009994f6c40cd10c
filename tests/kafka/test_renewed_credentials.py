"""An operator can renew certificates and passwords, and no program has to be restarted.

The tests have their own broker, which requires a certificate and a password from each client. This
broker restarts with new certificates.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cli.kafka.broker import EmbeddedKafka
from cli.kafka.distribution import KafkaCache
from faults.credentials import USER, Credentials, pems, set_password
from tests.ingest.conftest import PATH, SECRET, event, signed
from tests.kafka.harness import WorkerProcess, environment, free_port, run, until
from tests.kafka.programs import AuditProcess, ask_ingress, program, wait_ingress

pytestmark = pytest.mark.timeout(420)

IN_DAYS = 3


class Secured:
    """A broker, and the credential files of its clients; the credentials can be renewed."""

    def __init__(self, folder: Path, cache: KafkaCache) -> None:
        self.cache = cache
        self.credentials = Credentials(folder / "files")
        self.kafka = EmbeddedKafka(
            folder / "kafka",
            cache=cache,
            listeners={"SASL_SSL": 0},
            properties=self.credentials.listener_properties("SASL_SSL"),
        )

    @property
    def password_file(self) -> Path:
        return self.credentials.password_file

    def set_password(self, password: str) -> None:
        set_password(self.cache, self.kafka.bootstrap, USER, password)

    def renew(self, *of_sides: datetime | None, authority: trustme.CA | None = None) -> None:
        """Write certificates of a new authority, and restart the broker with them.

        ``of_sides`` has the time at which the broker's certificate expires, and then the time at
        which the client's certificate expires.
        """
        self.credentials.renew_certificates(*of_sides, authority=authority)
        self.kafka.restart()

    def env(self, folder: Path) -> dict[str, str]:
        made = environment(
            self.kafka.address("SASL_SSL"),
            folder / "ledger",
            webhook_secrets=SECRET,
            ingest_port=free_port(),
            ingest_metrics_port=free_port(),
        )
        return made | self.credentials.environment


@pytest.fixture
def secured(kafka_cache: KafkaCache, tmp_path: Path) -> Iterator[Secured]:
    made = Secured(tmp_path, kafka_cache)
    with made.kafka:
        made.set_password(made.password_file.read_text())
        yield made


@contextmanager
def programs(
    env: dict[str, str], folder: Path
) -> Iterator[tuple[WorkerProcess, WorkerProcess, AuditProcess]]:
    """Run a worker, an ingress and an audit; yield them when worker and ingress are ready."""
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


def test_programs_use_a_new_authority_and_new_certificates_and_a_new_password_without_a_restart(
    secured: Secured, tmp_path: Path
) -> None:
    env = secured.env(tmp_path)
    with programs(env, tmp_path) as (worker, ingress, audit):
        until(lambda: accepted(env, 1), within_s=30, what="the first delivery")
        until(lambda: worker.get("/orders/ord_1")[0] == 200, within_s=60, what="the order ord_1")

        secured.set_password("the second password")
        secured.password_file.write_text("the second password\n")
        secured.renew()

        until(lambda: accepted(env, 2), within_s=90, what=f"a delivery\n{ingress.tail()}")
        until(
            lambda: worker.get("/orders/ord_2")[0] == 200,
            within_s=90,
            what=f"the order ord_2\n{worker.tail()}",
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
    secured.renew(soon, soon)
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


EXPIRED = datetime.now(UTC).replace(microsecond=0) - timedelta(days=IN_DAYS)


def expired_authority() -> trustme.CA:
    """Return an authority that issues valid certificates, but whose own certificate has expired."""
    made = trustme.CA()
    valid = made._certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(valid.subject)
        .issuer_name(valid.issuer)
        .public_key(valid.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(EXPIRED - timedelta(days=365))
        .not_valid_after(EXPIRED)
    )
    for each in valid.extensions:
        builder = builder.add_extension(each.value, critical=each.critical)
    made._certificate = builder.sign(made._private_key, hashes.SHA256())
    return made


@pytest.mark.parametrize("whose", ["the broker ", "LEDGER_KAFKA_CERTIFICATE_FILE=", "an authority"])
def test_every_program_says_which_certificate_has_expired_and_ingress_uses_a_renewed_certificate(
    secured: Secured, tmp_path: Path, whose: str
) -> None:
    env = secured.env(tmp_path)
    said = re.compile(f"{whose}.* expired at {re.escape(EXPIRED.isoformat())}")
    if whose == "an authority":
        secured.renew(authority=expired_authority())
    else:
        of_broker = whose == "the broker "
        secured.renew(EXPIRED if of_broker else None, None if of_broker else EXPIRED)
    for command in ("topics", "doctor ingest", "doctor worker", "status", "worker", "verify"):
        code, printed = run(env, *command.split())
        assert code == 1, (command, printed)
        # `status` breaks long lines.
        assert said.search(" ".join(printed.split())), (command, printed)
    with program("ingest", env) as ingress:
        (line, *_) = until(
            lambda: ingress.logged("new_connections_refused"), within_s=90, what=ingress.tail
        )
        assert said.search(line["reason"]), line
        assert line["remedy"]
        secured.renew()
        assert run(env, "topics")[0] == 0
        wait_ingress(ingress)


def test_every_program_reports_a_changed_password_while_its_old_connections_stay_open(
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


def test_a_key_that_does_not_fit_its_certificate_is_reported_and_the_former_key_stays_in_use(
    secured: Secured, tmp_path: Path
) -> None:
    env = secured.env(tmp_path)
    with program("worker", env) as worker:
        worker.wait_ready(120)
        key = secured.credentials.key_file
        former = key.read_text()
        _, other = pems(trustme.CA().issue_cert("another.test"))
        key.write_text(other)
        (line, *_) = until(
            lambda: worker.logged("credentials_not_renewed"), within_s=60, what="a warning"
        )
        assert "LEDGER_KAFKA_KEY_FILE" in line["reason"]
        key.write_text(former)
        assert worker.get("/readyz")[0] == 200
