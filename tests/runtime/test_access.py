"""A server that has no token answers only under loopback names; a token is long, and must match."""

import pytest

from runtime.access import Token, is_loopback, require_token, wrong_host, wrong_token
from runtime.settings import SettingsError

TOKEN = Token("token of the tests")
LOOPBACK = [
    "localhost",
    "LocalHost:6066",
    "127.0.0.1",
    "127.8.9.1:6066",
    "[::1]",
    "[::1]:6066",
    "localhost:",
]
OTHERS = [
    "rebound.example",
    "rebound.example:6066",
    "localhost.rebound.example",
    "127.0.0.1.rebound.example",
    "10.0.0.1:6066",
    "0.0.0.0",  # noqa: S104
    "[::]:6066",
    "[2001:db8::1]",
    "127.1",
    "worker_1",
]
MALFORMED = [
    "",
    "a:b:c",
    "a:123456",
    "a:-1",
    "a b",
    "a/b",
    "user@localhost",
    "localhost,localhost",
    "[::1",
    "::1",
    "[a]",
    "[::1]]:80",
    "localhost\t",
    "\udcff",
    "[1:2:3]",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_loopback_name_is_allowed_if_the_server_has_a_token_and_if_it_has_none(host):
    assert wrong_host([host], None) is None
    assert wrong_host([host], TOKEN) is None


@pytest.mark.parametrize("host", OTHERS)
def test_a_name_that_is_not_loopback_is_allowed_only_if_the_server_has_a_token(host):
    problem = wrong_host([host], None)
    assert problem is not None
    assert (problem.status, problem.code) == (421, "host_not_allowed")
    assert host.rpartition(":")[0].strip("[]") in problem.detail
    assert "LEDGER_API_TOKEN" in problem.detail
    assert wrong_host([host], TOKEN) is None


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"], *([host] for host in MALFORMED)])
def test_a_request_without_exactly_one_valid_host_is_400_and_the_host_is_not_shown(hosts, token):
    problem = wrong_host(hosts, token)
    assert problem is not None
    assert (problem.status, problem.code) == (400, "invalid_host")
    assert problem == wrong_host([], token)


def test_a_very_long_name_does_not_cause_a_very_long_answer():
    problem = wrong_host(["x" * 8000], None)
    assert problem is not None
    assert len(problem.encode()) < 400


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_a_server_without_a_token_may_listen_on_loopback(address):
    assert is_loopback(address)
    require_token("LEDGER_WEB_BIND", address, None)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "worker"])  # noqa: S104
def test_a_server_that_listens_beyond_loopback_needs_a_token(address):
    assert not is_loopback(address)
    with pytest.raises(SettingsError, match=f"^LEDGER_WEB_BIND={address} .*LEDGER_API_TOKEN"):
        require_token("LEDGER_WEB_BIND", address, None)
    require_token("LEDGER_WEB_BIND", address, TOKEN)


def test_a_short_token_is_refused_and_not_shown():
    with pytest.raises(ValueError, match="at least 16 characters, got 15") as caught:
        Token("x" * 15)
    assert "xxx" not in str(caught.value)
    assert Token("x" * 16).reveal() == "x" * 16


def test_only_the_whole_token_is_accepted():
    assert wrong_token("Bearer token of the tests", TOKEN) is None
    for given in ("", "Bearer ", "Bearer token of the test", "token of the tests", "Bearer \udcff"):
        problem = wrong_token(given, TOKEN)
        assert problem is not None
        assert problem.status == 401
        assert wrong_token(given, None) is None
