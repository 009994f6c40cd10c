"""Defines the settings of the connection to Kafka, and the arguments for aiokafka's clients.

Importing this module corrects aiokafka; see ``corrections``.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from ledger.topics import TopicNames
from runtime.kafka import corrections
from runtime.kafka.credentials import PasswordFile, TlsFiles
from runtime.settings import Secret, Settings, SettingsError, setting, variable

DEFAULT_BOOTSTRAP: Final = "127.0.0.1:19092"

# Every program imports this module, for its Kafka settings, before it creates its first client. So
# no client exists without the corrections.
corrections.correct()

_TLS_FILES: Final = ("kafka_ca_file", "kafka_certificate_file", "kafka_key_file")
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/@;=?&#]+):[0-9]{1,5}")


class KafkaSettings(Settings, frozen=True, kw_only=True):
    """The brokers' addresses, and the security of the connections: TLS, SASL, both or neither."""

    kafka_bootstrap: Annotated[
        str | None,
        setting(
            "Kafka brokers, `host:port`, comma-separated. If it is not set, `run` starts an "
            f"embedded Kafka, and the other commands use {DEFAULT_BOOTSTRAP}",
        ),
    ] = None
    kafka_tls: Annotated[bool, setting("use TLS for connections to the brokers")] = False
    kafka_ca_file: Annotated[
        Path | None, setting("PEM file of the authority that signed the brokers' certificates")
    ] = None
    kafka_certificate_file: Annotated[
        Path | None, setting("PEM file of the client certificate for the brokers, with its chain")
    ] = None
    kafka_key_file: Annotated[
        Path | None,
        setting(
            "PEM file of the client's key. If it is not set, the key is in the client "
            "certificate's file"
        ),
    ] = None
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None,
        setting("SASL mechanism: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`"),
    ] = None
    kafka_username: Annotated[str | None, setting("SASL user")] = None
    kafka_password: Annotated[Secret | None, setting("SASL password")] = None
    kafka_password_file: Annotated[
        Path | None,
        setting("file that holds the SASL password; the file may be replaced at any time"),
    ] = None
    topic_prefix: Annotated[
        str, setting("prefix of every topic's name", pattern=r"^[a-zA-Z0-9._-]{0,100}$")
    ] = ""

    def check(self) -> None:
        """Refuse incomplete settings, such as a broker that has no port.

        Further examples are SASL with no password, and certificate files although TLS is off.
        """
        servers = self.bootstrap_servers
        for number, server in enumerate(servers, 1):
            if not _HOST_AND_PORT.fullmatch(server):
                # The message leaves out the value, because it may contain a password.
                raise SettingsError(
                    f"LEDGER_KAFKA_BOOTSTRAP: expected `host:port`, separated by commas; entry "
                    f"{number} of {len(servers)} is something else. A user and a password go into "
                    "LEDGER_KAFKA_USERNAME and LEDGER_KAFKA_PASSWORD"
                )
        self._check_password()
        self._check_files()

    def _check_password(self) -> None:
        if self.kafka_password and self.kafka_password_file:
            raise SettingsError(
                "LEDGER_KAFKA_PASSWORD and LEDGER_KAFKA_PASSWORD_FILE are both set: unset one"
            )
        password = self.kafka_password or self.kafka_password_file
        if self.kafka_sasl_mechanism and not (self.kafka_username and password):
            raise SettingsError(
                "LEDGER_KAFKA_SASL_MECHANISM is set: set LEDGER_KAFKA_USERNAME and "
                "LEDGER_KAFKA_PASSWORD (or LEDGER_KAFKA_PASSWORD_FILE) too"
            )
        if (self.kafka_username or password) and not self.kafka_sasl_mechanism:
            raise SettingsError(
                "LEDGER_KAFKA_USERNAME or LEDGER_KAFKA_PASSWORD is set: name the mechanism in "
                "LEDGER_KAFKA_SASL_MECHANISM, for example SCRAM-SHA-512"
            )

    def _check_files(self) -> None:
        if self.kafka_key_file and not self.kafka_certificate_file:
            raise SettingsError(
                "LEDGER_KAFKA_KEY_FILE is set: set LEDGER_KAFKA_CERTIFICATE_FILE too"
            )
        for name in _TLS_FILES:
            if getattr(self, name) and not self.kafka_tls:
                raise SettingsError(f"{variable(name)} is set: set LEDGER_KAFKA_TLS=true too")
        for name in (*_TLS_FILES, "kafka_password_file"):
            file: Path | None = getattr(self, name)
            # Unlike `Path.is_file`, this function raises no error if this user can't enter the
            # folder.
            if file and not os.path.isfile(file):  # noqa: PTH113
                raise SettingsError(
                    f"{variable(name)}: there is no file {file}, or this user can't see it"
                )

    @property
    def bootstrap_servers(self) -> list[str]:
        """The addresses of the brokers to ask first."""
        return [part.strip() for part in (self.kafka_bootstrap or DEFAULT_BOOTSTRAP).split(",")]

    @property
    def names(self) -> TopicNames:
        """The topics' names."""
        return TopicNames(self.topic_prefix)

    def tls_files(self) -> TlsFiles | None:
        """Return the source of the TLS context, or ``None`` for plain text."""
        if not self.kafka_tls:
            return None
        return _tls_files(self.kafka_ca_file, self.kafka_certificate_file, self.kafka_key_file)

    def password(self) -> PasswordFile | str | None:
        """Return the SASL password, or the file that contains the password."""
        if self.kafka_password_file:
            return _password_file(self.kafka_password_file)
        return self.kafka_password.reveal() if self.kafka_password else None

    def client_options(self) -> dict[str, Any]:
        """Return the arguments of every aiokafka client: brokers, security protocol, credentials.

        aiokafka passes the objects for the TLS context and the password to its connections
        unchanged. ``corrections`` makes each connection read the current values from the files.
        """
        # Kafka's own names are "PLAINTEXT" and "SSL" or, if SASL is used, "SASL_PLAINTEXT" and
        # "SASL_SSL".
        protocol = "SASL_" if self.kafka_sasl_mechanism else ""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": protocol + ("SSL" if self.kafka_tls else "PLAINTEXT"),
            "ssl_context": self.tls_files(),
        }
        if self.kafka_sasl_mechanism:
            options |= {
                "sasl_mechanism": self.kafka_sasl_mechanism,
                "sasl_plain_username": self.kafka_username,
                "sasl_plain_password": self.password(),
            }
        return options


# All clients of a process share one object per file. So a client that is created while the file is
# half-written gets the former content.
_tls_files = cache(TlsFiles)
_password_file = cache(PasswordFile)
