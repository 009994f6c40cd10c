"""No program's log contains a secret, or any part of a body except ids and types.

The programs are ingress, a worker, `run` and Kafka. They log at level `debug` while good, forged,
broken and failing requests arrive. `run` also prints commands that a person can copy. These
commands contain the signing secret, but they are not part of a log.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest

from ledger.signature import SignedForm, sign
from tests.ingest.conftest import PATH, event
from tests.kafka.programs import Run, is_ready

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("kafka_cache"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

SECRETS = ("whsec_first_of_this_run", "whsec_second_of_this_run")
TOKEN = "token_of_this_run"
# Bodies contain this word, and no log may contain it. (Logs contain ids and types, so that an
# operator can find a delivery.)
IN_BODIES = "a_word_of_the_body"
# When the worker rejects a body, it describes the fault, but does not quote the body's values.
WRONG_VALUE = "a_wrong_value_of_the_body"


def bodies(number: int) -> list[bytes]:
    """Return good bodies, bodies that only the worker refuses, and bodies that ingress refuses."""
    name = f"evt_{number}"
    data = {"id": f"pay_{number}", "amount": 990, "currency": "KZT", "status": "succeeded"}
    data |= {"merchantReference": f"ord_{number}", "customer": IN_BODIES}
    return [
        event(name, data=data),
        event(name, data=data | {"amount": 991}),
        event(f"{name}_currency", data=data | {"currency": WRONG_VALUE}),
        event(f"{name}_amount", data=data | {"amount": WRONG_VALUE}),
        event(f"{name}_created", created=WRONG_VALUE, data=data),
        json.dumps(IN_BODIES).encode()[:-1],
        b'{"id":"evt_bytes","type":1,"x":"%b\xff"}' % IN_BODIES.encode(),
    ]


def deliver_everything(url: str) -> list[str]:
    """Send good and bad requests to ingress; return all signatures that were sent."""
    signatures = []
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        for secret in (*SECRETS, "whsec_of_a_stranger"):
            for form in (SignedForm.BODY, SignedForm.TIMESTAMPED):
                for body in bodies(len(signatures)):
                    for at_s in (int(time.time()), 1):
                        signature = sign(body, secret.encode(), at_s, form)
                        signatures.append(signature.rpartition("=")[2])
                        headers = {"Content-Type": "application/json", "Plexy-Signature": signature}
                        client.post(PATH, content=body, headers=headers)
        client.post(PATH, content=IN_BODIES, headers={"Content-Type": "text/plain"})
        client.post(PATH, content=IN_BODIES * 100_000, headers={"Content-Type": "application/json"})
        client.request(IN_BODIES.upper(), f"/{IN_BODIES}?{IN_BODIES}")
    return signatures


def ask_for_everything(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        for token in (TOKEN, f"{TOKEN}x", "x"):
            for path in ("/orders/ord_0", "/orders/nobody", "/nowhere", "/orders/%FF", "/healthz"):
                client.get(path, headers={"Authorization": f"Bearer {token}"})


def logs_of(run: Run) -> dict[str, str]:
    """Return every log by its path: the logs of the programs, of Kafka and of RocksDB."""
    folder = run.folder / "data"
    files = [run.folder / "err", *folder.rglob("broker.log"), *folder.rglob("LOG*")]
    return {str(file.relative_to(run.folder)): file.read_text(errors="replace") for file in files}


def test_no_log_of_a_whole_run_contains_a_secret_or_a_body(tmp_path: Path):
    run = Run(
        tmp_path / "run",
        LEDGER_WEBHOOK_SECRETS=",".join(SECRETS),
        LEDGER_API_TOKEN=TOKEN,
        LEDGER_LOG_LEVEL="debug",
        LEDGER_LOG_FORMAT="json",
    )
    try:
        run.wait_started()
        ingest, views = addresses(run)
        signatures = deliver_everything(ingest)
        run.until(lambda: order_is_there(views), within_s=60, what="an order")
        ask_for_everything(views)
        # A worker writes more log lines when it recovers from a kill than when it keeps running.
        os.kill(run.child("worker"), signal.SIGKILL)
        run.until(lambda: "worker was started again" in run.err, within_s=60, what="a new worker")
        run.until(lambda: is_ready(views), within_s=90, what="ready again")
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(60) == 0
    finally:
        run.end()
    found = logs_of(run)
    assert any(name.endswith("broker.log") for name in found)
    assert any("LOG" in name for name in found)
    # The log has lines about the requests of this test.
    for outcome in ("accepted", "signature_mismatch", "malformed_json", "unsupported_media_type"):
        assert f'"outcome": "{outcome}"' in found["err"]
    for name, text in found.items():
        for hidden in (*SECRETS, TOKEN, IN_BODIES, WRONG_VALUE, *signatures):
            assert hidden not in text, f"{hidden} is in {name}"


def addresses(run: Run) -> tuple[str, str]:
    names = ("LEDGER_INGEST_PORT", "LEDGER_WEB_PORT")
    return tuple(f"http://127.0.0.1:{run.setting(name)}" for name in names)


def order_is_there(views: str) -> bool:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.get(f"{views}/orders/ord_0", headers=headers, trust_env=False).status_code == 200
