"""The container files match the programs' settings, commands, ports, volumes and health checks.

These tests need no Docker, and check the rules of this project. If `make check` finds Docker's
plug-in for Compose, the plug-in checks the format of docker-compose.yml.
"""

import re
import subprocess
import sys
import threading
import tomllib
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer.main
import yaml

from cli.kafka.distribution import KAFKA_VERSION
from cli.main import app
from cli.settings_table import READ_BY, variables
from ingest.app import create_app
from ingest.settings import IngestSettings
from processors.settings import WorkerSettings
from runtime.kafka.topics import TopicSettings
from runtime.settings import SettingsError
from tests.fakes import FakeLog

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
PROGRAMS = {name: service for name, service in SERVICES.items() if "build" in service}

SECRETS = {"LEDGER_WEBHOOK_SECRETS": "whsec_of_the_test", "LEDGER_API_TOKEN": "token of the test"}
_DOCKER_RUN = r"\$ docker run (?:[^\n]*\\\n)*[^\n]*"
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class UnsetError(Exception):
    """A required variable has no value; Compose shows this message and starts nothing."""


def interpolate(text: str, given: dict[str, str]) -> str:
    """Insert variables as Compose does: `${NAME:-default}` and `${NAME:?message}`."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if given.get(name):
            return given[name]
        if operator == "-":
            return rest
        raise UnsetError(f"{name}: {rest}")

    return _VARIABLE.sub(value, text)


def environment(service: str, given: dict[str, str] = SECRETS) -> dict[str, str]:
    """Return the environment of a service's container."""
    listed = SERVICES[service]["environment"]
    return {name: interpolate(text, given) for name, text in listed.items()}


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"\b(LEDGER_\w+)=(\S+)", DOCKERFILE))


def settings_of(service: str) -> TopicSettings | IngestSettings:
    kinds = {"topics": TopicSettings, "ingest": IngestSettings, "worker": WorkerSettings}
    return kinds[service].from_environment(image_environment() | environment(service))


def test_compose_runs_the_three_programs_of_a_ledger():
    assert list(PROGRAMS) == ["topics", "ingest", "worker"]
    assert set(SERVICES) - set(PROGRAMS) == {"kafka"}


@pytest.mark.parametrize("service", PROGRAMS)
def test_a_service_runs_an_existing_command(service):
    (command,) = PROGRAMS[service]["command"]
    assert command in typer.main.get_command(app).commands
    assert 'ENTRYPOINT ["plexy-ledger"]' in DOCKERFILE
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "plexy-ledger" in project["scripts"]


@pytest.mark.parametrize("text", [DOCKERFILE, EXAMPLE, COMPOSE_TEXT], ids=["image", ".env", "yml"])
def test_every_named_setting_exists(text):
    known = {name for command in READ_BY for name in variables(command)}
    assert set(re.findall(r"\bLEDGER_\w+", text)) - known == set()


@pytest.mark.parametrize("service", PROGRAMS)
def test_the_settings_of_a_program_pass_its_own_check(service):
    assert settings_of(service).bootstrap_servers == ["kafka:9092"]


def test_a_program_reads_every_variable_that_is_set_only_for_it():
    shared = set(COMPOSE["x-settings"])
    for service, program in PROGRAMS.items():
        own = set(program["environment"]) - shared
        assert own <= set(variables(service)), service


def test_all_programs_agree_on_the_topics():
    names = [name.removeprefix("LEDGER_").lower() for name in variables("topics")]
    topics, worker = settings_of("topics"), settings_of("worker")
    for name in names:
        assert getattr(worker, name) == getattr(topics, name)


@pytest.mark.parametrize("name", SECRETS)
def test_without_a_secret_nothing_starts_and_the_message_says_what_to_set(name):
    others = {other: value for other, value in SECRETS.items() if other != name}
    for given in (others, others | {name: ""}):
        with pytest.raises(UnsetError, match=rf"{name}: set it in \.env to "):
            [environment(service, given) for service in SERVICES]


def test_the_example_lists_every_setting_and_contains_no_secret():
    asked = set(_VARIABLE.findall(COMPOSE_TEXT))
    assert {name for name, _, _ in asked} == set(re.findall(r"(?m)^#?(LEDGER_\w+)=", EXAMPLE))
    assert re.findall(r"(?m)^LEDGER_\w+=.+", EXAMPLE) == []
    commented = dict(re.findall(r"(?m)^#(LEDGER_\w+)=(.*)", EXAMPLE))
    assert commented == {name: default for name, kind, default in asked if kind == "-"}


def test_the_worker_refuses_to_serve_its_views_without_the_token():
    given = environment("worker") | {"LEDGER_API_TOKEN": ""}
    with pytest.raises(SettingsError, match="LEDGER_API_TOKEN"):
        WorkerSettings.from_environment(given)


def test_uncommenting_the_secrets_makes_the_worker_check_signatures():
    text, lines = re.subn(r"(?m)^( +)# (LEDGER_WEBHOOK_SECRETS: )", r"\1\2", COMPOSE_TEXT)
    assert lines == 1
    listed = yaml.safe_load(text)["services"]["worker"]["environment"]
    for given, checks in ((SERVICES["worker"]["environment"], False), (listed, True)):
        values = {name: interpolate(value, SECRETS) for name, value in given.items()}
        settings = WorkerSettings.from_environment(image_environment() | values)
        assert (settings.trust is not None) is checks


def test_a_service_waits_for_states_that_the_other_services_can_reach():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            ends = SERVICES[other].get("restart", "no") == "no"
            reached = {"service_completed_successfully": ends, "service_healthy": not ends}
            assert reached[how["condition"]], f"{name} waits for {other}"
            assert how["condition"] != "service_healthy" or "healthcheck" in SERVICES[other]


def test_each_volume_is_declared_and_mounted_at_the_data_folder():
    mounts = {
        name: dict(mount.split(":") for mount in service.get("volumes", []))
        for name, service in SERVICES.items()
    }
    assert {volume for each in mounts.values() for volume in each} == set(COMPOSE["volumes"])
    data_dir = settings_of("worker").data_dir
    assert list(mounts["worker"].values()) == [str(data_dir)]
    assert list(mounts["kafka"].values()) == [environment("kafka")["KAFKA_LOG_DIRS"]]
    assert f"--home-dir {data_dir} " in DOCKERFILE, "the image must create its user's folder"


def test_the_broker_has_the_version_that_the_tests_use():
    assert SERVICES["kafka"]["image"].startswith(f"apache/kafka:{KAFKA_VERSION}@sha256:")


def foreign_images() -> list[str]:
    """Return every third-party image that the repository's files use."""
    stages = re.findall(r"(?m)^FROM (\S+)", DOCKERFILE)
    services = [each["image"] for each in SERVICES.values() if "build" not in each]
    pages = [path.read_text() for path in (ROOT / "docs").rglob("*.md")]
    commands = [
        text.replace("\\\n", " ") for page in pages for text in re.findall(_DOCKER_RUN, page)
    ]
    return [*stages, *services, *(command.split()[-1] for command in commands)]


def test_every_third_party_image_is_named_with_its_digest():
    """The owner of an image can move a tag to other contents; a digest names fixed contents."""
    images = foreign_images()
    assert len(images) >= 4
    for image in images:
        assert re.fullmatch(r"[a-z/]+:[0-9][\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_both_stages_of_the_image_have_the_same_python_and_operating_system():
    build, run = re.findall(r"(?m)^FROM python:(\S+)@", DOCKERFILE)
    assert run.replace("-slim", "") == build


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_writes_only_to_its_volumes_and_has_no_privileges(service):
    confined = SERVICES[service]
    assert confined["read_only"] is True
    assert confined["cap_drop"] == ["ALL"]
    assert confined["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in confined
    assert "tmpfs" not in confined or service == "kafka", "our programs write only to volumes"


def test_only_services_with_a_published_port_have_a_network_besides_the_internal_network():
    networks = COMPOSE["networks"]
    assert networks["inside"] == {"internal": True}
    for name, service in SERVICES.items():
        inside, *others = service["networks"]
        assert inside == "inside"
        assert bool(others) == ("ports" in service), name
    outward = [other for service in SERVICES.values() for other in service["networks"][1:]]
    assert sorted(outward) == sorted(networks.keys() - {"inside"}), (
        "each other network has one service"
    )


def test_the_broker_listens_at_the_address_that_the_programs_use():
    broker = environment("kafka")
    assert broker["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://kafka:9092"
    assert "PLAINTEXT://:9092" in broker["KAFKA_LISTENERS"].split(",")
    assert broker["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert "ports" not in SERVICES["kafka"], "the listener checks no credentials"


@pytest.mark.parametrize("service", ["ingest", "worker"])
def test_a_published_port_is_on_loopback_and_the_program_listens_on_it(service):
    settings = settings_of(service)
    ingest = isinstance(settings, IngestSettings)
    host = settings.ingest_host if ingest else settings.web_bind
    port = settings.ingest_port if ingest else settings.web_port
    assert host == "0.0.0.0", "Docker can't reach the container's loopback"  # noqa: S104
    ports = [port]
    if isinstance(settings, IngestSettings):
        assert settings.ingest_metrics_host == host
        ports.append(settings.ingest_metrics_port)
    assert PROGRAMS[service]["ports"] == [f"127.0.0.1:{each}:{each}" for each in ports]


def test_other_workers_reach_the_views_of_a_worker_by_the_service_name():
    assert settings_of("worker").web_host in SERVICES


def test_a_health_check_requests_a_path_that_the_program_serves():
    routes = {route.path for route in create_app(settings_of("ingest"), FakeLog()).routes}
    assert "/readyz" in routes
    for service, port in (("ingest", 8000), ("worker", 6066)):
        assert f"http://127.0.0.1:{port}/readyz" in _health_check(service)[-1]


@pytest.mark.parametrize("service", ["ingest", "worker"])
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_a_health_check_distinguishes_ready_from_not_ready(service, status, healthy):
    _, *command = _health_check(service)
    with HTTPServer(("127.0.0.1", 0), partial(_Answer, status)) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        here = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{server.server_port}", command[-1])
        ended = subprocess.run(
            [sys.executable, *command[1:-1], here], capture_output=True, check=False, timeout=30
        )
    assert (ended.returncode == 0) is healthy


def _health_check(service: str) -> list[str]:
    test = PROGRAMS[service]["healthcheck"]["test"]
    assert test[:2] == ["CMD", "python"], "the image has no shell tools that speak HTTP"
    return test


class _Answer(BaseHTTPRequestHandler):
    """Answers every request with the same status."""

    def __init__(self, status: int, *args: object) -> None:
        self._status = status
        super().__init__(*args)

    def do_GET(self):
        self.send_response(self._status)
        self.end_headers()

    def log_message(self, *_args):
        pass


def test_the_image_has_every_package_and_the_build_gets_every_file_that_the_image_copies():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    copied = set(re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", DOCKERFILE))
    sources = {source.rstrip("/") for line in copied for source in line.split()}
    assert set(packages["targets"]["wheel"]["packages"]) <= sources
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:].rstrip("/") for line in ignored if line.startswith("!")} == sources


def test_the_image_runs_as_an_unprivileged_user():
    (user,) = re.findall(r"(?m)^USER (\S+)$", DOCKERFILE)
    assert f"--uid {user} " in DOCKERFILE
    assert DOCKERFILE.index("\nUSER ") > DOCKERFILE.rindex("\nRUN ")
