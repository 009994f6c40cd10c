"""Checks whether the programs' ports are free, and names the process that listens on a taken port.

A result shows only the process's name and id, because the process's command line may contain a
secret.
"""

from collections.abc import Iterator
from typing import Final

import httpx
import psutil

from cli.doctor.checks import CheckResult, Patient, ok, problem, warning
from cli.errors import PortTakenError
from cli.ports import WantedPort, base_url, require_free
from cli.run.command import plan
from cli.settings import AuditSettings, BrokerSettings
from ingest.settings import IngestSettings
from processors.settings import WorkerSettings
from runtime.metrics import PREFIX
from runtime.settings import SettingsError

_ANSWER_WITHIN_S: Final = 2.0
_LOOPBACK: Final = "127.0.0.1"
_METRIC: Final = f"# TYPE {PREFIX}_"


def check_ports(patient: Patient) -> Iterator[CheckResult]:
    """Check the port of each setting once, even if several programs read the setting."""
    wanted = list(wanted_ports(patient))
    free = []
    for each in wanted:
        try:
            require_free([each])
        except PortTakenError as error:
            yield _taken(each, error, patient)
        else:
            free.append(f"{each.port} ({each.program})")
    for one, two in ((one, two) for one in wanted for two in wanted if one.variable < two.variable):
        if one.port == two.port:
            yield problem(
                f"{one.variable} and {two.variable} are both {one.port}",
                "give each setting its own port, unless the programs run on different machines",
            )
    if free:
        yield ok(f"free ports: {', '.join(free)}")


def wanted_ports(patient: Patient) -> Iterator[WantedPort]:
    """Yield the ports of the programs whose settings can be read."""
    found: dict[str, WantedPort] = {}
    for program in patient.programs:
        try:
            for each in _of(program, patient):
                found.setdefault(each.variable, each)
        except SettingsError:
            continue  # the check of the settings reports this error
    yield from found.values()


def _of(program: str, patient: Patient) -> list[WantedPort]:
    environment = patient.environment
    match program:
        case "run":
            return plan(environment).ports()
        case "ingest":
            ingest = IngestSettings.from_environment(environment)
            host, port = ingest.ingest_host, ingest.ingest_port
            ports = [WantedPort("ingest", host, port, "LEDGER_INGEST_PORT")]
            if metrics := ingest.ingest_metrics_port:
                host, variable = ingest.ingest_metrics_host, "LEDGER_INGEST_METRICS_PORT"
                ports.append(WantedPort("ingest", host, metrics, variable))
            return ports
        case "worker":
            worker = WorkerSettings.from_environment(environment)
            return [WantedPort("worker", worker.web_bind, worker.web_port, "LEDGER_WEB_PORT")]
        case "audit":
            audit = AuditSettings.from_environment(environment)
            return [WantedPort("audit", audit.audit_host, audit.audit_port, "LEDGER_AUDIT_PORT")]
        case "kafka":
            port = BrokerSettings.from_environment(environment).kafka_port
            return [WantedPort("kafka", _LOOPBACK, port, "LEDGER_KAFKA_PORT")]
        case _:
            return []


def answers(url: str) -> bool:
    """Return whether one of the ledger's programs answers at an address.

    A program of the ledger is recognised by its metrics or by its answer to ``/healthz``. The
    answer to ``/healthz`` alone is not enough, because the metrics port of ingress serves only
    metrics.
    """
    try:
        with httpx.Client(base_url=url, timeout=_ANSWER_WITHIN_S, trust_env=False) as client:
            metrics = client.get("/metrics").text
            return _METRIC in metrics or client.get("/healthz").json() == {"status": "alive"}
    except (httpx.HTTPError, ValueError):
        return False


def _taken(wanted: WantedPort, error: PortTakenError, patient: Patient) -> CheckResult:
    """Name the process on a taken port; if a program of the ledger has the port, only warn."""
    what, remedy = error.fault.what + _holder(wanted), error.fault.remedy
    url = base_url(wanted.host, wanted.port)
    runs = patient.cluster if wanted.program == "kafka" else answers(url)
    if not runs:
        return problem(what, remedy)
    return warning(
        f"{what}, and a program of the ledger answers there",
        f"do nothing if this is the intended program; otherwise {remedy}",
    )


def _holder(wanted: WantedPort) -> str:
    """Return the process that listens on a port, or "" if this user may not see the process."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return ""
    for each in connections:
        here = each.laddr and each.laddr.port == wanted.port
        if here and each.status == psutil.CONN_LISTEN and each.pid:
            try:
                return f", {psutil.Process(each.pid).name()} (pid {each.pid}) has it"
            except psutil.Error:
                return f", pid {each.pid} has it"
    return ""
