"""The one command, ``plexy-ledger``: what a person types, and how errors are shown.

In: arguments and the environment. Out: an exit code: 0 done, 1 failed, 2 a wrong argument or
setting, 130 interrupted. Never: a traceback for what a person can put right.
"""

import logging
import sys
from typing import NoReturn

import typer

from cli.commands import app
from cli.errors import exit_code
from runtime.environment import isolate_process

__all__ = ["app", "main"]


def main() -> NoReturn:
    """Run the command that the arguments name; ends the process."""
    isolate_process()
    # Kafka's client logs what it then raises, and a program without logs of its own prints it.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        app(prog_name="plexy-ledger")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        typer.echo(f"plexy-ledger: {error}", err=True)
        sys.exit(code)
    sys.exit(0)
