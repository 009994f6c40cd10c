"""A peer (a program that is compared with the ledger) is reported with its fastest setting.

A setting's rate is the median rate of its runs. The slower settings run only in the first round.
"""

import io
import json

from rich.console import Console

from bench.__main__ import _schedule
from bench.fold import FoldRun
from bench.peers.faust_plain import FaustPlain
from bench.peers.kafka_streams import FourThreads, OneThread
from bench.peers.ours import LedgerWorker
from bench.program import Peer
from bench.report import rates, show, write


def run(program: type[Peer], rate: float, *differences: str) -> FoldRun:
    return FoldRun(
        program=program, events=1_000, seconds=1_000 / rate, cpu_s=0.1, differences=differences
    )


RUNS = [
    run(LedgerWorker, 14_000.0),
    run(OneThread, 9_000.0),
    run(FourThreads, 8_000.0),
    run(LedgerWorker, 10_000.0),
    run(LedgerWorker, 12_000.0),
    run(OneThread, 7_000.0),
    run(OneThread, 7_500.0),
]


def test_a_peers_rate_is_the_median_rate_of_its_fastest_setting():
    assert dict(rates(RUNS)) == {"ours": 12_000.0, "kafka_streams": 8_000.0}


def test_the_report_shows_the_range_of_each_peers_rates_and_the_ratios_and_the_differences():
    file = io.StringIO()
    show(
        Console(file=file, width=200),
        [*RUNS, run(FaustPlain, 600.0, "2 orders differ (9 orders expected in all)")],
    )
    text = file.getvalue()
    assert "10,000 to 14,000" in text
    assert "1.6x" in text
    assert "20.0x" in text
    assert "faust_plain: 2 orders differ (9 orders expected in all)" in text


def test_the_file_has_the_rates_and_every_run(tmp_path):
    path = tmp_path / "bench.json"
    write(
        path,
        [
            run(LedgerWorker, 14_000.0),
            run(FaustPlain, 700.0, "1 order differs (9 orders expected in all)"),
        ],
    )
    document = json.loads(path.read_text())
    assert document["fold"] == {"ours": 14_000.0, "faust_plain": 700.0}
    runs = [(each["program"], each["equal"]) for each in document["details"]["fold"]["runs"]]
    assert runs == [("ours", True), ("faust_plain", False)]


def test_every_second_round_is_reversed_and_slow_peers_and_slow_settings_run_only_once():
    done: list[FoldRun] = []
    rate = {LedgerWorker: 14_000.0, OneThread: 8_000.0, FourThreads: 9_000.0, FaustPlain: 700.0}
    order = []
    for program in _schedule(list(rate), done, 3):
        done.append(run(program, rate[program]))
        order.append(program)
    first = [LedgerWorker, OneThread, FourThreads, FaustPlain]
    assert order == [*first, FourThreads, LedgerWorker, LedgerWorker, FourThreads]
