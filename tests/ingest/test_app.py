"""The application answers requests outside its endpoints, and starts and stops cleanly."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from structlog.testing import CapturingLogger

import ingest.app
from ingest.app import create_app
from ingest.health import ReadinessProbe
from tests.fakes import FakeLog
from tests.ingest.conftest import PATH, ingress, serving, settings

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", ["/", "/webhooks", f"{PATH}/", "/webhooks/plexy/x", "/docs"])
async def test_an_unknown_path_is_answered_with_a_problem_document(running, path):
    answer = await running.client.post(path, content=b"{}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", PATH, "POST"),
        ("PUT", PATH, "POST"),
        ("HEAD", PATH, "POST"),
        ("OPTIONS", PATH, "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/readyz", "GET, HEAD"),
    ],
)
async def test_a_forbidden_method_is_answered_with_405_and_the_allowed_methods(
    running, method, path, allow
):
    answer = await running.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    if method != "HEAD":
        assert answer.json()["code"] == "method_not_allowed"


async def test_a_bug_is_answered_with_a_problem_document_that_hides_the_text_of_the_exception(
    monkeypatch, caplog
):
    async def broken(*_):
        raise ZeroDivisionError("with a secret in its text")

    monkeypatch.setattr(ReadinessProbe, "ready", broken)
    async with ingress() as started:
        answer = await started.client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "ZeroDivisionError" in caplog.text


async def test_the_log_runs_as_long_as_the_application_runs():
    log = FakeLog()
    async with serving(create_app(settings(), log)):
        assert log.running
    assert not log.running


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_warning_at_start_up_reports_that_signatures_are_not_checked(monkeypatch, allowed):
    lines = CapturingLogger()
    monkeypatch.setattr(ingest.app, "_log", lines)
    async with serving(create_app(settings(allow_unsigned=allowed), FakeLog())):
        logged = [(call.method_name, call.args[0]) for call in lines.calls]
    assert logged == ([("warning", "signatures_not_checked")] if allowed else [])


async def test_the_application_also_works_without_a_server():
    transport = httpx.ASGITransport(create_app(settings(), FakeLog()))
    async with httpx.AsyncClient(transport=transport, base_url="http://ingress") as client:
        assert (await client.get("/healthz")).json() == {"status": "alive"}
        large = b" " * (2**20 + 1)
        headers = {"content-type": "application/json"}
        assert (await client.post(PATH, content=large, headers=headers)).status_code == 413


def test_an_unknown_attribute_of_the_module_is_an_error():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        ingest.app.nothing_like_it  # noqa: B018


def test_wrong_settings_end_the_program_with_one_line_and_a_non_zero_exit_code():
    ended = subprocess.run(
        [sys.executable, "-m", "uvicorn", "ingest.app:app"],
        cwd=PROJECT,
        env={"LEDGER_SIGNED_FORM": "body"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    [line] = ended.stderr.strip().splitlines()
    assert line.startswith("ingest can't start: LEDGER_WEBHOOK_SECRETS is not set")
