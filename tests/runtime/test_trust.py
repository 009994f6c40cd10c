"""A secret that was copied wrongly is refused at the start of every program that uses secrets."""

import pytest

from cli.settings import DEVELOPMENT_SECRET, JudgeSettings, ProveSettings, SendSettings
from ingest.settings import IngestSettings
from processors.settings import WorkerSettings
from runtime.settings import SettingsError
from runtime.trust import check_secret

GOOD = "whsec_0123456789"


@pytest.mark.parametrize(
    "program", [IngestSettings, WorkerSettings, SendSettings, ProveSettings, JudgeSettings]
)
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (f'"{GOOD}"', "in quotes"),
        (f"'{GOOD}'", "in quotes"),
        (f"\u201c{GOOD}\u201d", "in quotes"),
        (f"\u00ab{GOOD}\u00bb", "in quotes"),
        (f"\u201e{GOOD}\u201c", "in quotes"),
        (f"v1,{GOOD}", "v1,"),
        (f"Bearer {GOOD}", "without `Bearer`"),
        (f"{GOOD};{GOOD}2", "separate several with commas"),
        (f"{GOOD} {GOOD}2", "separate several with commas"),
        (f"{GOOD}\n{GOOD}2", "separate several with commas"),
        (GOOD[:-1], "has 15 characters, expected at least 16"),
        (f"{GOOD},short", "has 5 characters"),
    ],
)
def test_a_wrong_secret_is_refused_with_the_reason_and_never_shown(program, wrong, why):
    with pytest.raises(SettingsError, match=why) as caught:
        program.from_environment({"LEDGER_WEBHOOK_SECRETS": wrong})
    assert "LEDGER_WEBHOOK_SECRETS" in str(caught.value)
    assert GOOD[6:12] not in str(caught.value)


@pytest.mark.parametrize("secret", [GOOD, DEVELOPMENT_SECRET])
def test_a_secret_as_plexy_shows_it_is_accepted(secret):
    check_secret("--secret", secret)


def test_old_secrets_are_checked_in_the_same_way_as_current_secrets():
    with pytest.raises(SettingsError, match="LEDGER_OLD_WEBHOOK_SECRETS"):
        WorkerSettings.from_environment({"LEDGER_OLD_WEBHOOK_SECRETS": "short"})
