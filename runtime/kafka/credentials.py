"""Reads credentials from files, which an operator may replace while the programs run.

Input: the paths of the files. Output: the current TLS context and password for each new connection.
Invariant: if a file can't be used, for example because it is half-written, the problem is logged,
and the former content is used until the file is valid again.
"""

import contextlib
import ssl
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from runtime.fault import Fault
from runtime.kafka.certificates import expires_s
from runtime.settings import SettingsError

T = TypeVar("T")

# Without this argument, OpenSSL would ask for a key's passphrase on the terminal.
_NO_PASSPHRASE: Final = ""

_log = structlog.get_logger(__name__)


class CredentialsError(SettingsError):
    """A file with credentials can't be used; the fault names the setting and the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        self.fault = Fault(what, remedy)
        super().__init__(str(self.fault))


class Renewed(ABC, Generic[T]):
    """A value that is built from files, and rebuilt after a file is replaced."""

    def __init__(self, *files: Path | None) -> None:
        """Read the files; raise ``CredentialsError`` if one of them can't be used."""
        self._files = [file for file in files if file]
        self._state: list[tuple[int, int, int]] = []
        # If a file's state can't be read, the attempt to read the file itself reports the error.
        with contextlib.suppress(OSError):
            self._state = self._look()
        self._value = self._make()
        self._trouble = ""

    def current(self) -> T:
        """Return the value for a new connection."""
        try:
            state = self._look()
            if state != self._state:
                self._value = self._make()
                self._state = state
            self._trouble = ""
        except (SettingsError, OSError) as error:
            # Each new connection finds the error again, but the error is logged only once.
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.warning("credentials_not_renewed", reason=self._trouble)
        return self._value

    def _look(self) -> list[tuple[int, int, int]]:
        """Return a state that changes when a file, or the target of a link, is replaced."""
        found = [file.stat() for file in self._files]
        return [(each.st_ino, each.st_mtime_ns, each.st_size) for each in found]

    @abstractmethod
    def _make(self) -> T:
        """Build the value from the files."""


class PasswordFile(Renewed[str]):
    """The SASL password in a file."""

    def _make(self) -> str:
        (file,) = self._files
        try:
            password = file.read_text("utf-8").strip("\r\n")
        except OSError as error:
            raise CredentialsError(
                f"LEDGER_KAFKA_PASSWORD_FILE={file} can't be read: {error}", "let this user read it"
            ) from None
        except UnicodeDecodeError as error:
            raise CredentialsError(
                f"LEDGER_KAFKA_PASSWORD_FILE={file} is not UTF-8 text ({error.reason})",
                "write only the password into the file",
            ) from None
        if not password:
            raise CredentialsError(
                f"LEDGER_KAFKA_PASSWORD_FILE={file} is empty", "write the password into the file"
            )
        return password


class TlsFiles(Renewed[ssl.SSLContext]):
    """The trusted authority, and the client certificate if there is one."""

    def __init__(self, ca: Path | None, certificate: Path | None, key: Path | None) -> None:
        """Read the files; the key may be in the file of the certificate."""
        self._ca, self._certificate, self._key = ca, certificate, key
        self.expires_s: float | None = None
        super().__init__(ca, certificate, key)

    def _make(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
        except OSError as error:
            raise CredentialsError(
                f"LEDGER_KAFKA_CA_FILE={self._ca} has no certificates: {error}",
                "set it to a PEM file of the authority that signed the brokers' certificates, "
                "which this user can read",
            ) from None
        if self._certificate:
            try:
                context.load_cert_chain(self._certificate, self._key, _NO_PASSPHRASE)
                self.expires_s = expires_s(self._certificate.read_bytes())
            except (OSError, ValueError) as error:
                raise CredentialsError(
                    f"LEDGER_KAFKA_CERTIFICATE_FILE={self._certificate} and "
                    f"LEDGER_KAFKA_KEY_FILE={self._key} can't be used: {error}",
                    "set them to PEM files of a certificate and of its key, without a passphrase, "
                    "which this user can read",
                ) from None
        return context
