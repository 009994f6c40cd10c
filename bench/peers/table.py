"""Lists the measured programs.

To add a program, write a subclass of ``bench.program.Peer`` in a new module, and add the class to
``PROGRAMS``.
"""

from typing import Final

from bench.peers.faust_plain import FaustPlain
from bench.peers.kafka_streams import FourThreads, OneThread, Tuned, TwoThreads
from bench.peers.ours import LedgerWorker
from bench.peers.quix_streams import QuixStreams
from bench.program import Peer

PROGRAMS: Final[tuple[type[Peer], ...]] = (
    LedgerWorker,
    OneThread,
    TwoThreads,
    FourThreads,
    Tuned,
    QuixStreams,
    FaustPlain,
)
