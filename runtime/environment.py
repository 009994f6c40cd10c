"""Deletes the environment variables that a library would take for its own settings.

Invariant: only ``LEDGER_*`` and the documented variables of OpenTelemetry affect a program.

Libraries read variables with common names. For example, Faust reads ``BROKER_URL`` as the cluster
to join. It also reads ``WEB_PORT``, and Kubernetes sets this variable for a service named ``web``.
``processors.topology`` also passes ``env={}`` to Faust, because `faust worker` reads some variables
before it imports our modules.
"""

import io
import os
import sys
from typing import Final

# For each of these prefixes and names, at least one library reads such a variable.
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
    """Delete other programs' variables, and print UTF-8 in any locale.

    Call this before the libraries are imported, because some libraries read their variables at
    import.
    """
    for name in [each for each in os.environ if is_foreign(each)]:
        del os.environ[name]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A path on the command line may contain bytes that are not UTF-8.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def is_foreign(name: str) -> bool:
    """Return whether a library would take a variable for one of the library's own settings."""
    return name in _NAMES or name.startswith(_PREFIXES)
