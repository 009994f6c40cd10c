"""Creates and renews the credentials with which brokers and programs authenticate each other.

The module writes files into one folder, and returns the settings with which brokers and programs
use these files. After a file is replaced, a program reads the new file for its next connection. A
broker reads the new file at its next start.
"""

import subprocess
from datetime import datetime
from pathlib import Path
from typing import Final

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cli.kafka.broker import fetch
from cli.kafka.distribution import EmbeddedKafkaError, KafkaCache
from cli.kafka.process import HOST
from runtime.folders import private_folder

MECHANISM: Final = "SCRAM-SHA-512"
USER: Final = "ledger"


class Credentials:
    """A certificate authority, certificates of brokers and programs, and the programs' password."""

    def __init__(self, folder: Path) -> None:
        # A broker has a working folder of its own, so it needs absolute paths.
        folder = private_folder(folder.absolute())
        self.key_file = folder / "key.pem"
        self.password_file = folder / "password"
        self._authority_file = folder / "authority.pem"
        self._certificate_file = folder / "certificate.pem"
        self._broker_file = folder / "broker.pem"
        self.password_file.write_text("the first password")
        self.renew_certificates()

    def renew_certificates(
        self,
        broker_expires: datetime | None = None,
        client_expires: datetime | None = None,
        authority: trustme.CA | None = None,
    ) -> None:
        """Replace the authority and the certificates; the new authority signs the new ones."""
        authority = authority or trustme.CA()
        authority.cert_pem.write_to_path(self._authority_file)
        chain, key = pems(authority.issue_cert(HOST, not_after=broker_expires))
        self._broker_file.write_text(key + chain)
        chain, key = pems(authority.issue_cert(HOST, not_after=client_expires))
        self._certificate_file.write_text(chain)
        self.key_file.write_text(key)

    def listener_properties(self, listener: str) -> dict[str, str]:
        """Return broker properties for a listener that requires a certificate and a password."""
        name = f"listener.name.{listener.lower()}"
        return {
            f"{name}.ssl.keystore.type": "PEM",
            f"{name}.ssl.keystore.location": str(self._broker_file),
            f"{name}.ssl.truststore.type": "PEM",
            f"{name}.ssl.truststore.location": str(self._authority_file),
            f"{name}.ssl.client.auth": "required",
            **password_properties(listener),
        }

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a program that connects with these credentials."""
        return {
            "LEDGER_KAFKA_TLS": "true",
            "LEDGER_KAFKA_CA_FILE": str(self._authority_file),
            "LEDGER_KAFKA_CERTIFICATE_FILE": str(self._certificate_file),
            "LEDGER_KAFKA_KEY_FILE": str(self.key_file),
            "LEDGER_KAFKA_SASL_MECHANISM": MECHANISM,
            "LEDGER_KAFKA_USERNAME": USER,
            "LEDGER_KAFKA_PASSWORD_FILE": str(self.password_file),
        }


def password_properties(listener: str) -> dict[str, str]:
    """Return broker properties for a listener that requires a password."""
    name = f"listener.name.{listener.lower()}"
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    return {
        f"{name}.sasl.enabled.mechanisms": MECHANISM,
        f"{name}.{MECHANISM.lower()}.sasl.jaas.config": f"{module} required;",
    }


def set_password(cache: KafkaCache, bootstrap: str, user: str, password: str) -> None:
    """Set a user's password on the brokers, through the listener that requires no credentials."""
    config = f"{MECHANISM}=[iterations=4096,password={password}]"
    command = fetch(cache).command(
        "kafka.admin.ConfigCommand",
        *("--bootstrap-server", bootstrap, "--alter", "--add-config", config),
        *("--entity-type", "users", "--entity-name", user),
    )
    # If Kafka's tool gets no answer, it ends by itself after a minute.
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise EmbeddedKafkaError(
            f"The brokers did not accept the new password for {user}:\n{done.stdout}{done.stderr}"
        )


def pems(certificate: trustme.LeafCert) -> tuple[str, str]:
    """Return a certificate's chain and key in PEM; the key is in PKCS #8, as Kafka requires."""
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    key = load_pem_private_key(certificate.private_key_pem.bytes(), password=None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return chain.decode(), pkcs8.decode()
