"""The program ``plexy-ledger``: runs the command that the user types, and shows errors.

The exit code is 0 for success, 1 for a failure, 2 for a wrong argument or setting, and 130 for an
interrupt. An error that the user can fix is shown without a traceback.
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
    """Run the command that the arguments name, and end the process."""
    isolate_process()
    # aiokafka logs errors before it raises them. If there were no handler, Python would print them.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        app(prog_name="plexy-ledger")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        typer.echo(f"plexy-ledger: {str(error) or type(error).__name__}", err=True)
        sys.exit(code)
    sys.exit(0)
