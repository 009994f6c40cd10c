"""The table of the programs that are measured.

To add a program, write a subclass of ``bench.program.Program`` in a new module, and add a line
here.
"""

from typing import Final

from bench.peers.faust_plain import FaustPlain
from bench.peers.kafka_streams import FourThreads, OneThread, Tuned, TwoThreads
from bench.peers.ours import Ours
from bench.peers.quix_streams import QuixStreams
from bench.program import Program

PROGRAMS: Final[tuple[type[Program], ...]] = (
    Ours,
    OneThread,
    TwoThreads,
    FourThreads,
    Tuned,
    QuixStreams,
    FaustPlain,
)
