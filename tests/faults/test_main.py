"""The program that injects faults prints a known failure as one line."""

import sys

from faults import __main__ as program
from runtime.fault import Fault
from runtime.kafka.topic_looks import TopicsError


def test_a_wrong_setting_of_a_topic_is_printed_with_the_remedy(monkeypatch, capsys):
    def refuse(*_: object) -> int:
        raise TopicsError(Fault("topic t has x=1, expected 2", "change it"))

    monkeypatch.setattr(program, "_run", refuse)
    monkeypatch.setattr(sys, "argv", ["faults", "--seed", "1"])
    assert program.main() == 2
    assert capsys.readouterr().out.splitlines()[-1] == "topic t has x=1, expected 2: change it"
