"""Credential files are read again only after they have been replaced."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs

from runtime.kafka import certificates
from runtime.kafka.certificates import expires_s
from runtime.kafka.credentials import PasswordFile, TlsFiles
from runtime.settings import SettingsError


def write_pair(folder: Path, name: str, *, expires: datetime | None = None) -> tuple[Path, Path]:
    made = trustme.CA().issue_cert(name, not_after=expires)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    made.private_key_pem.write_to_path(key)
    return certificate, key


def test_a_password_is_the_files_current_content(tmp_path):
    file = tmp_path / "password"
    file.write_text("the first\n")
    password = PasswordFile(file)
    assert password.current() == "the first"
    file.with_suffix(".new").write_text("the second")
    file.with_suffix(".new").replace(file)
    assert password.current() == "the second"


def test_an_empty_or_missing_password_file_is_logged_once_and_the_old_password_stays(tmp_path):
    file = tmp_path / "password"
    file.write_text("the first")
    password = PasswordFile(file)
    with capture_logs() as logs:
        file.write_text("")
        assert [password.current(), password.current()] == ["the first", "the first"]
        file.unlink()
        assert password.current() == "the first"
    assert [line["event"] for line in logs] == ["credentials_not_renewed"] * 2
    assert not any("the first" in str(line) for line in logs)


def test_an_empty_password_file_is_refused_at_the_start(tmp_path):
    file = tmp_path / "password"
    file.write_text("\n")
    with pytest.raises(SettingsError, match=r"LEDGER_KAFKA_PASSWORD_FILE=.* is empty"):
        PasswordFile(file)


def test_a_password_that_is_not_utf_8_is_refused_at_the_start_and_logged_later(tmp_path):
    file = tmp_path / "password"
    file.write_bytes("пароль".encode("cp1251"))
    with pytest.raises(SettingsError, match=r"_PASSWORD_FILE=.* is not UTF-8 text") as raised:
        PasswordFile(file)
    file.write_text("пароль", "utf-8")
    password = PasswordFile(file)
    with capture_logs() as logs:
        file.write_bytes("другой".encode("cp1251"))
        assert password.current() == "пароль"
    assert [line["reason"] for line in logs] == [str(raised.value)]


def test_a_tls_context_is_created_again_only_after_a_file_was_replaced(tmp_path):
    certificate, key = write_pair(tmp_path, "one.test")
    files = TlsFiles(None, certificate, key)
    first = files.current()
    assert files.current() is first
    write_pair(tmp_path, "two.test")
    assert files.current() is not first


def test_the_error_for_a_key_of_a_different_certificate_names_both_settings(tmp_path):
    certificate, key = write_pair(tmp_path, "one.test")
    other = tmp_path / "other"
    other.mkdir()
    _, wrong = write_pair(other, "two.test")
    with pytest.raises(SettingsError, match=r"LEDGER_KAFKA_CERTIFICATE_FILE=.*LEDGER_KAFKA_KEY_F"):
        TlsFiles(None, certificate, wrong)
    assert TlsFiles(None, certificate, key).expires_s


@pytest.mark.parametrize("year", [2031, 2077])
def test_the_expiry_of_a_certificate_is_read_in_both_asn1_time_formats(tmp_path, year):
    at = datetime(year, 5, 17, 12, 30, 45, tzinfo=UTC)
    certificate, _ = write_pair(tmp_path, "one.test", expires=at)
    assert expires_s(certificate.read_bytes()) == at.timestamp()


def test_the_expiry_of_a_broker_is_the_earliest_expiry_in_its_certificate_chain():
    def certificate(name: str, issuer: str, year: int) -> dict[str, Any]:
        return {"subject": name, "issuer": issuer, "notAfter": f"Jan  1 00:00:00 {year} GMT"}

    def year(*trusted: dict[str, Any]) -> int:
        context = SimpleNamespace(get_ca_certs=lambda: trusted)
        known = {
            "peercert": certificate("broker", "department", 2030),
            "ssl_object": SimpleNamespace(context=context),
        }
        certificates.note("broker:1", SimpleNamespace(get_extra_info=known.__getitem__))
        return datetime.fromtimestamp(certificates.of_brokers()["broker:1"], UTC).year

    department = certificate("department", "root", 2029)
    assert year() == 2030
    assert year(department) == 2029
    assert year(department, certificate("root", "root", 2028)) == 2028
    renewed = certificate("root", "root", 2040)
    assert year(department, certificate("root", "root", 2028), renewed) == 2029
    assert year(certificate("stranger", "stranger", 2025)) == 2030
    certificates.forget_others(())


def test_a_file_that_contains_no_certificate_is_refused():
    with pytest.raises(ValueError, match="expected a PEM file"):
        expires_s(b"nothing")
