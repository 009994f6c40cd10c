"""Runs Kafka, ingress and worker in the foreground until Ctrl-C or SIGTERM: the command ``run``.

Standard output shows how to try the ledger. Standard error has the programs' own output, each line
prefixed with its program's name. The user's own signing secret is shown only on a terminal, and is
never written to a file or a pipe.
"""

import asyncio
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import msgspec
import typer

from cli.kafka.broker import EmbeddedKafka
from cli.ports import WantedPort, base_url, require_free
from cli.run.local import KafkaProgram, kafka_cache, running, sigterm_as_interrupt
from cli.run.programs import Command, Program, Show
from cli.run.supervisor import Supervisor
from cli.send import build_event, encode
from cli.settings import DEVELOPMENT_SECRET, WEBHOOK_PATH, RunSettings
from ingest.settings import IngestSettings
from ledger.events import PAYMENT_SUCCEEDED
from ledger.signature import SignedForm
from processors.settings import WorkerSettings
from runtime.addresses import RUN_METRICS_PORT
from runtime.kafka.topics import ensure_topics
from runtime.settings import SettingsError

_COLOURS: Final = {"ingest": "cyan", "worker": "magenta"}


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The environment and the settings of the programs, all checked before any program starts."""

    environment: dict[str, str]
    run: RunSettings
    ingest: IngestSettings
    worker: WorkerSettings
    embeds_kafka: bool

    @property
    def webhook_url(self) -> str:
        """The address to which webhooks are posted."""
        return base_url(self.ingest.ingest_host, self.ingest.ingest_port) + WEBHOOK_PATH

    @property
    def views_url(self) -> str:
        """The address of the worker's views and its page."""
        return base_url(self.worker.web_bind, self.worker.web_port)

    @property
    def metrics_urls(self) -> tuple[str, str]:
        """The addresses of the metrics of ingress and of the worker."""
        host, port = self.ingest.ingest_metrics_host, self.ingest.ingest_metrics_port
        return f"{base_url(host, port or RUN_METRICS_PORT)}/metrics", f"{self.views_url}/metrics"

    def ports(self) -> list[WantedPort]:
        """Return the ports that must be free."""
        run, ingest, worker = self.run, self.ingest, self.worker
        ports = [
            WantedPort("ingest", ingest.ingest_host, ingest.ingest_port, "LEDGER_INGEST_PORT"),
            WantedPort(
                "ingest",
                ingest.ingest_metrics_host,
                ingest.ingest_metrics_port or RUN_METRICS_PORT,
                "LEDGER_INGEST_METRICS_PORT",
            ),
            WantedPort("worker", worker.web_bind, worker.web_port, "LEDGER_WEB_PORT"),
        ]
        if self.embeds_kafka:
            ports.insert(0, WantedPort("kafka", "127.0.0.1", run.kafka_port, "LEDGER_KAFKA_PORT"))
        return ports


def plan(environment: Mapping[str, str]) -> RunPlan:
    """Read all settings; raise ``SettingsError`` if one is wrong."""
    run = RunSettings.from_environment(environment)
    ours = dict(environment)
    if not run.allow_unsigned and not ours.get("LEDGER_WEBHOOK_SECRETS", "").strip():
        ours["LEDGER_WEBHOOK_SECRETS"] = DEVELOPMENT_SECRET
    embeds_kafka = not ours.get("LEDGER_KAFKA_BOOTSTRAP", "").strip()
    if embeds_kafka:
        ours["LEDGER_KAFKA_BOOTSTRAP"] = f"127.0.0.1:{run.kafka_port}"
    if "LEDGER_LOG_FORMAT" not in ours and sys.stderr.isatty():
        ours["LEDGER_LOG_FORMAT"] = "pretty"
    if not ours.get("LEDGER_INGEST_METRICS_PORT", "").strip():
        ours["LEDGER_INGEST_METRICS_PORT"] = str(RUN_METRICS_PORT)
    worker = WorkerSettings.from_environment(ours)
    if embeds_kafka and (worker.kafka_tls or worker.kafka_sasl_mechanism):
        raise SettingsError(
            "LEDGER_KAFKA_TLS or LEDGER_KAFKA_SASL_MECHANISM is set, but the Kafka that `run` "
            "starts uses neither TLS nor SASL: set LEDGER_KAFKA_BOOTSTRAP to the address of your "
            "own Kafka, or unset both settings"
        )
    ingest = IngestSettings.from_environment(ours)
    return RunPlan(
        environment=ours, run=run, ingest=ingest, worker=worker, embeds_kafka=embeds_kafka
    )


def run(environment: Mapping[str, str]) -> None:
    """Run everything until an interrupt; return after everything has stopped."""
    planned = plan(environment)
    require_free(planned.ports())
    with sigterm_as_interrupt():
        try:
            _run(planned)
        except KeyboardInterrupt:
            _say("everything is stopped")


def _run(planned: RunPlan) -> None:
    with ExitStack() as stack:
        programs: list[Program] = []
        if planned.embeds_kafka:
            broker = EmbeddedKafka(
                planned.run.data_dir / "kafka",
                cache=kafka_cache(planned.run),
                port=planned.run.kafka_port,
            )
            _say("starting Kafka")
            programs.append(KafkaProgram(stack.enter_context(broker)))
        asyncio.run(ensure_topics(planned.worker))
        commands = _commands(planned)
        _say("starting ingest and worker")
        stack.enter_context(running(commands))
        programs += [command for command, _ in commands]
        typer.echo(describe(planned, now_s=int(time.time()), on_terminal=sys.stdout.isatty()))
        try:
            Supervisor(programs, _say).watch()
        finally:
            _say("stopping worker and ingest, then Kafka")


def _commands(planned: RunPlan) -> list[tuple[Command, str]]:
    ingest = Command("ingest", planned.environment, _shown_as("ingest"))
    worker = Command("worker", planned.environment, _shown_as("worker"))
    ingest_url = base_url(planned.ingest.ingest_host, planned.ingest.ingest_port)
    return [(ingest, f"{ingest_url}/readyz"), (worker, f"{planned.views_url}/readyz")]


def describe(planned: RunPlan, *, now_s: int, on_terminal: bool) -> str:
    """Return the addresses, the secret, and two lines that can be pasted into a shell."""
    order_id = f"ord_{now_s}"
    secret, remark = _secret(planned, on_terminal=on_terminal)
    return f"""
The ledger is running; Ctrl-C stops it.

  page      {planned.views_url}/
  webhooks  {planned.webhook_url}
  orders    {planned.views_url}/orders/<order id>
  payments  {planned.views_url}/payments/<payment id>
  metrics   {"  ".join(planned.metrics_urls)}
  Kafka     {",".join(planned.worker.bootstrap_servers)}
  data      {planned.run.data_dir.absolute()}
  secret    {remark}

Send a signed event (paste it into a shell):

{_curl_event(planned, secret, now_s)}

Look at its order:

{_curl_order(planned, order_id)}
"""


def _secret(planned: RunPlan, *, on_terminal: bool) -> tuple[str, str]:
    """Return the secret as a shell word, and a remark about the secret."""
    if not planned.ingest.webhook_secrets:
        return DEVELOPMENT_SECRET, "none is required (LEDGER_ALLOW_UNSIGNED=true)"
    secret = planned.ingest.webhook_secrets[0].reveal()
    if secret == DEVELOPMENT_SECRET:
        remark = f"{secret} (for development only: LEDGER_WEBHOOK_SECRETS is not set)"
        return shlex.quote(secret), remark
    if on_terminal:
        return shlex.quote(secret), f"{secret} (the first of LEDGER_WEBHOOK_SECRETS)"
    # If the output is a file or a pipe, the printed command contains no secret: the shell that runs
    # the command reads the secret from its environment.
    word = '"${LEDGER_WEBHOOK_SECRETS%%,*}"'
    return word, "the first of LEDGER_WEBHOOK_SECRETS (shown only on a terminal)"


def _curl_event(planned: RunPlan, secret: str, now_s: int) -> str:
    data = {
        "id": f"pay_{now_s}",
        "amount": 500000,
        "currency": "KZT",
        "status": "succeeded",
        planned.worker.order_fields[0]: f"ord_{now_s}",
    }
    body = encode(build_event(f"evt_{now_s}", PAYMENT_SUCCEEDED, now_s, data)).decode()
    timestamped = planned.ingest.signed_form is SignedForm.TIMESTAMPED
    signed = '"$T.$BODY"' if timestamped else '"$BODY"'
    return (
        f"BODY={shlex.quote(body)}; T=$(date +%s); "
        f"SIG=$(printf %s {signed} | openssl dgst -sha256 -hmac {secret} | sed 's/^.* //'); "
        f"curl -sS {planned.webhook_url} -H 'Content-Type: application/json' "
        '-H "Plexy-Signature: t=$T,v1=$SIG" --data-binary "$BODY"'
    )


def _curl_order(planned: RunPlan, order_id: str) -> str:
    token = ' -H "Authorization: Bearer $LEDGER_API_TOKEN"' if planned.worker.api_token else ""
    return f"curl -sS {planned.views_url}/orders/{order_id}{token}"


def _shown_as(name: str) -> Show:
    prefix = typer.style(f"{name} │", fg=_COLOURS[name])

    def show(line: str) -> None:
        typer.echo(f"{prefix} {line}", err=True)

    return show


def _say(text: str) -> None:
    typer.echo(f"run    │ {text}", err=True)
