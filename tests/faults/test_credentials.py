"""Only a secured stage has credentials; a renewal replaces all certificates and all keys."""

import pytest

from faults.credentials import Credentials
from runtime.kafka.connection import KafkaSettings


@pytest.mark.parametrize(("secured", "protocol"), [(False, "PLAINTEXT"), (True, "SASL_SSL")])
def test_only_the_programs_of_a_secured_stage_connect_with_credentials(describe, secured, protocol):
    stage = describe(1, secured=secured)
    for program in (stage.ingest, *stage.workers, *stage.extras):
        settings = KafkaSettings.from_environment(program._command._environment)
        assert settings.client_options()["security_protocol"] == protocol
    assert stage.settings.client_options()["security_protocol"] == "PLAINTEXT"


def test_a_renewal_replaces_the_authority_and_every_certificate_and_every_key(tmp_path):
    credentials = Credentials(tmp_path / "files")
    files = sorted((tmp_path / "files").glob("*.pem"))
    former = [file.read_text() for file in files]
    credentials.renew_certificates()
    assert len(files) == 4
    assert not set(former) & {file.read_text() for file in files}
    # A certificate that does not match its key would be refused here.
    tls = KafkaSettings.from_environment(credentials.environment).tls_files()
    assert tls
    assert tls.expires_s
