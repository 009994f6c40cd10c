"""The commands' errors that a user can fix; each is shown as one message without a traceback.

    CommandError               exit code 1
    ├── WrongOptionError       exit code 2, like ``SettingsError``: an unusable option or file
    ├── PortTakenError         a port is taken
    ├── ProgramEndedError      the command started a program, and the program ended by itself
    ├── NotReadyError          a program runs, but does not become ready
    ├── NotFoldedError         the workers did not finish within the time limit
    ├── NotReadError           a topic has more records, but Kafka does not return them
    ├── DeliveryError          a delivery received no answer
    ├── JournalError           the journal has a fault, so it can't be exported or reconciled
    ├── LogFileError           a log file is damaged, or does not fit the existing log
    ├── NotWrittenError        Kafka did not accept the records
    ├── NotRebuiltError        there is nothing to rebuild, or the version exists already
    └── ViewError              an order can't be read

``exit_code`` also covers the errors of other packages. Every other exception is a bug.
"""

from typing import Final

from runtime.fault import Fault

FAILED: Final = 1
WRONG: Final = 2


class CommandError(RuntimeError):
    """A command can't do its work; the message gives the reason and the remedy."""


class WrongOptionError(CommandError):
    """An option, or the file that it names, can't be used."""


class PortTakenError(CommandError):
    """A port is taken; the fault names the port and the setting that chooses it."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(str(fault))


class ProgramEndedError(CommandError):
    """A program ended by itself; the message has the exit code and the last lines of output."""


class NotReadyError(CommandError):
    """A program runs, but does not become ready; the message has the probe's answer."""


class NotFoldedError(CommandError):
    """The workers did not finish within the limit; the message counts the remaining records."""


class NotReadError(CommandError):
    """A topic has more records, but Kafka does not return them; the message has the offset."""


class DeliveryError(CommandError):
    """A delivery received no answer; the message names the address."""


class JournalError(CommandError):
    """The journal has a fault; the message names the record and the remedy."""


class LogFileError(CommandError):
    """A log file is damaged, or the topic has other records; the message names the place."""


class NotWrittenError(CommandError):
    """Kafka did not acknowledge the records, or another program also writes to the topic."""


class NotRebuiltError(CommandError):
    """A version can't be built, because there is no log or because the version exists already."""


class ViewError(CommandError):
    """An order that is in Kafka can't be read from the worker's views."""


def exit_code(error: Exception) -> int | None:
    """Return the exit code for an error that a user can fix; ``None`` for a bug."""
    # These imports are local because `--help` needs none of them.
    from runtime.internals import MissingInternalError  # noqa: PLC0415

    if isinstance(error, MissingInternalError):
        # The imports below would raise the same error again.
        return FAILED
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from cli.kafka.distribution import EmbeddedKafkaError  # noqa: PLC0415
    from runtime.kafka.identities import ExpirationError  # noqa: PLC0415
    from runtime.kafka.topic_looks import TopicsError  # noqa: PLC0415
    from runtime.settings import SettingsError  # noqa: PLC0415

    if isinstance(error, WrongOptionError | SettingsError):
        return WRONG
    # An OSError, such as a full disk, names the file in its text.
    failures = (CommandError, EmbeddedKafkaError, TopicsError, ExpirationError, KafkaError, OSError)
    return FAILED if isinstance(error, failures) else None
