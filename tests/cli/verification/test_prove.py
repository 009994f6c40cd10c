"""`plexy-ledger prove` prints its verdict, and the verdict sets the exit code."""

import io
import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from cli.errors import WrongOptionError
from cli.verification import prove as proving
from cli.verification.prove import prove
from ledger.verification.proof import Proof, make
from runtime.settings import SettingsError
from tests.ledger.examples import refund, success
from tests.ledger.verification.audited import RULES, SECRET, logged

SECRETS = {"LEDGER_WEBHOOK_SECRETS": SECRET.decode()}


@pytest.fixture
def proof() -> Proof:
    events = [success("evt_1", order="ord_1"), refund("evt_2", 2, 100)]
    return make(logged(events), RULES, "ord_1")


@pytest.fixture
def file(proof: Proof, tmp_path: Path) -> Path:
    path = tmp_path / "proof.json"
    path.write_bytes(msgspec.json.encode(proof))
    return path


def test_a_valid_proof_prints_the_checks(file, capsys):
    assert prove(SECRETS, file, 720, Console(width=100), as_json=False)
    printed = capsys.readouterr().out
    assert "order ord_1: partially_refunded" in printed
    assert "KZT: paid 500, refunded 100, net 400" in printed
    assert "2 of 2 signatures good" in printed
    assert "The whole proof holds." in printed


def test_every_fault_of_a_proof_is_reported(file, capsys):
    assert not prove(
        {"LEDGER_WEBHOOK_SECRETS": "whsec_of_another"}, file, 720, Console(width=200), as_json=False
    )
    printed = capsys.readouterr().out
    assert printed.count("signature_mismatch") == 2
    assert "0 of 2 signatures good" in printed
    assert "2 faults: the proof does not hold" in printed
    assert "checked" not in printed


@pytest.mark.parametrize(("deliveries", "shown"), [(10, False), (200, True)])
def test_a_terminal_shows_a_bar_only_for_a_large_proof(deliveries, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(proving, "_MANY", 600)
    events = [success(f"evt_{n}", payment=f"pay_{n}", order="ord_1") for n in range(deliveries)]
    path = tmp_path / "proof.json"
    path.write_bytes(msgspec.json.encode(make(logged(events), RULES, "ord_1")))
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    assert prove(SECRETS, path, 3, console, as_json=False)
    assert ("folding sequences" in screen.getvalue()) is shown
    assert ("3/3" in screen.getvalue()) is shown


def test_the_output_for_scripts_is_one_json_document(file, capsys):
    assert prove({"LEDGER_ALLOW_UNSIGNED": "true"}, file, 2, Console(), as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "order_id": "ord_1",
        "faults": [],
        "deliveries": 2,
        "events": 2,
        "signatures": None,
        "bearer": 0,
        "sequences": 2,
    }


def test_unchecked_signatures_are_mentioned(file, capsys):
    unsigned = {"LEDGER_ALLOW_UNSIGNED": "true"}
    assert prove(unsigned, file, 2, Console(width=100), as_json=False)
    printed = capsys.readouterr().out
    assert "no signature was checked" in printed
    assert "good" not in printed
    assert "The proof holds, but no signature was checked." in printed


def test_a_single_fault_is_counted_in_the_singular(proof, tmp_path, capsys):
    assert proof.order is not None
    path = tmp_path / "proof.json"
    path.write_bytes(msgspec.json.encode(replace(proof, order=replace(proof.order, version=9))))
    assert not prove(SECRETS, path, 2, Console(width=200), as_json=False)
    printed = capsys.readouterr().out
    assert "✗ the order does not follow from these events: version: 9 is stated, 2 fo" in printed
    assert "1 fault: the proof does not hold" in printed


def test_a_proof_is_checked_with_the_rules_of_this_ledger(proof, tmp_path):
    path = tmp_path / "proof.json"
    path.write_bytes(msgspec.json.encode(proof))
    others = SECRETS | {"LEDGER_ORDER_FIELDS": "shopOrder"}
    assert not prove(others, path, 2, Console(), as_json=False)


def test_if_no_secret_is_set_no_proof_passes(file):
    with pytest.raises(SettingsError, match="LEDGER_WEBHOOK_SECRETS"):
        prove({}, file, 720, Console(), as_json=False)


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[]", b'{"format": 1}'])
def test_a_file_that_is_not_a_proof_is_refused(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WrongOptionError, match=r"x\.json"):
        prove(SECRETS, path, 720, Console(), as_json=False)
