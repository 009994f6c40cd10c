"""The environment as the programs and their libraries see it, and the encoding of what they print.

Input: the environment variables of this process. Output: the same without the variables that a
library would take for settings. Invariant: besides ``LEDGER_*``, only the documented variables of
OpenTelemetry decide what a program does.

Libraries read variables whose names are everybody's: for Faust, ``BROKER_URL`` is the cluster to
join, and Kubernetes sets ``WEB_PORT`` for a service that is named ``web``. Faust's settings are
also kept from the environment by ``env={}`` in ``processors.topology``, since `faust worker` has
read some variables before it imports anything of ours.
"""

import io
import os
import sys
from typing import Final

# Each name, or the beginning of a name, that one of the libraries reads.
_PREFIXES: Final = ("F_", "FAUST_", "AIOHTTP_NO", "AIOKAFKA_", "PROMETHEUS_")
_NAMES: Final = frozenset(
    {
        # Faust and mode
        "DEVLOG",
        "DJANGO_SETTINGS_MODULE",
        "NO_CYTHON",
        "TYPEXPR_DEBUG",
        # prometheus_client
        "prometheus_multiproc_dir",
        # uvicorn
        "FORWARDED_ALLOW_IPS",
        "WEB_CONCURRENCY",
    }
)


def isolate_process() -> None:
    """Ignore the variables of other programs, and print UTF-8 whatever the locale says.

    Call it before the libraries are imported: some read their variables then.
    """
    for name in [each for each in os.environ if is_foreign(each)]:
        del os.environ[name]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A path on the command line may hold bytes that are no UTF-8.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def is_foreign(name: str) -> bool:
    """Return whether a library would take a variable for a setting that is not one of ours."""
    return name in _NAMES or name.startswith(_PREFIXES)
