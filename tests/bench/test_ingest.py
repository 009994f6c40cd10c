"""The load on ingress consists of signed deliveries with distinct event ids.

A run that refuses or loses a delivery reports a fault.
"""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from bench.ingest import report
from bench.ingest.load import SECRET, Load, deliver, require_wrk, write_bodies
from bench.ingest.run import IngestRun
from bench.ingest.servers import EmptyHandler, LedgerIngress, Server
from bench.recording import record
from bench.stage import BenchError
from ingest.app import create_app
from runtime.settings import Secret
from tests.fakes import FakeLog
from tests.ingest.conftest import serving, settings

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


async def load_of(tmp_path: Path, log: FakeLog, secret: str, run: int = 1) -> Load:
    """Deliver for one second to an ingress whose webhook secret is ``secret``."""
    bodies = tmp_path / "bodies"
    write_bodies(bodies, record(50, seed=1))
    app = create_app(settings(webhook_secrets=(Secret(secret),)), log)
    async with serving(app) as address:
        port = int(address.rpartition(":")[2])
        return await asyncio.to_thread(deliver, port, bodies, seconds=1, connections=4, run=run)


@needs_wrk
async def test_each_delivery_is_signed_and_has_its_own_event_id(tmp_path):
    log = FakeLog()
    loads = [await load_of(tmp_path, log, SECRET, run) for run in (1, 2)]
    assert [(load.refused, load.lost) for load in loads] == [(0, 0), (0, 0)]
    answered = sum(load.answered for load in loads)
    assert 100 < answered <= len(log.records)
    assert {record.topic for record in log.records} == {"plexy.webhooks"}
    ids = [msgspec.json.decode(record.value)["id"] for record in log.records]
    assert len(set(ids)) == len(ids)


@needs_wrk
async def test_refused_deliveries_are_counted(tmp_path):
    load = await load_of(tmp_path, FakeLog(), "whsec_test_key_another")
    assert load.refused == load.answered > 100


def test_without_wrk_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="apt install wrk"):
        require_wrk()


def a_run(server: type[Server], rate: int, *, refused: int = 0, kept: int = 10**9) -> IngestRun:
    load = Load(answered=rate, refused=refused, lost=0, took_us=10**6, p50_us=1, p99_us=1)
    warm_up = Load(answered=0, refused=0, lost=0, took_us=1, p50_us=1, p99_us=1)
    return IngestRun(server=server, load=load, warm_up=warm_up, cpu_s=1.0, kept=kept)


@pytest.mark.parametrize(
    ("run", "faults"),
    [
        (a_run(LedgerIngress, 100), 0),
        (a_run(LedgerIngress, 100, kept=100), 0),
        (a_run(LedgerIngress, 100, kept=99), 1),
        (a_run(EmptyHandler, 100, kept=0), 0),
        (a_run(LedgerIngress, 100, refused=1), 1),
        (a_run(LedgerIngress, 100, refused=1, kept=98), 2),
    ],
)
def test_a_run_in_which_deliveries_were_refused_or_lost_has_faults(run, faults):
    assert len(run.faults) == faults


def test_the_ratio_of_two_servers_is_the_median_of_the_ratios_of_all_rounds():
    runs: Sequence[IngestRun] = [
        a_run(server, rate)
        for rates in ((50, 100), (80, 100), (900, 1000))
        for server, rate in zip((LedgerIngress, EmptyHandler), rates, strict=True)
    ]
    assert report.ratio(EmptyHandler, runs) == pytest.approx(0.8)
    assert report.rates(runs) == {"ours": 80.0, "empty_handler": 100.0}
