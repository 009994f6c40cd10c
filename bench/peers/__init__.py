"""The programs that are measured: one module each, and this table of them.

A new peer is a subclass of ``bench.program.Program`` in a module of its own, and a line here.
"""

from typing import Final

from bench.peers.faust_plain import FaustPlain
from bench.peers.ours import Ours
from bench.program import Program

PEERS: Final[tuple[type[Program], ...]] = (Ours, FaustPlain)
