"""The errors of the commands: what a person can put right, shown as one message, no traceback.

    CommandError               exit code 1
    ├── WrongOptionError       exit code 2, like ``SettingsError``: an option, or a file it names
    ├── PortTakenError         a port is not to be had
    ├── ProgramEndedError      a program that was started ended by itself
    ├── NotReadyError          a program runs, and does not get ready
    ├── NotFoldedError         the workers did not finish in time
    ├── NotReadError           a topic has more records, and they do not come
    ├── DeliveryError          nobody answered a delivery
    ├── TopicMissingError      a topic that is to be read is not there
    ├── JournalError           the journal has a fault, so that no account can be made of it
    ├── LogFileError           a file of a log is damaged, or does not fit what is there
    ├── NotWrittenError        Kafka did not take what was to be written
    ├── NotRebuiltError        there is nothing to rebuild, or it is rebuilt already
    └── ViewError              an order can't be read

``exit_code`` knows those of other packages too. Every other exception is a bug of ours.
"""

from typing import Final

FAILED: Final = 1
WRONG: Final = 2


class CommandError(RuntimeError):
    """A command can't do what it is asked to; the message says why, and what to do."""


class WrongOptionError(CommandError):
    """An option, or the file that it names, can't be used."""


class PortTakenError(CommandError):
    """A port is not to be had; the message names it and the setting that chooses another."""


class ProgramEndedError(CommandError):
    """A program ended by itself; the message has its exit code and its last lines."""


class NotReadyError(CommandError):
    """A program runs and does not get ready; the message has what it answered."""


class NotFoldedError(CommandError):
    """The time ran out before everything was folded; the message has what is left."""


class NotReadError(CommandError):
    """A topic has more records, and they do not come; the message has where it stands."""


class DeliveryError(CommandError):
    """No answer came; the message says from where, and what to do."""


class TopicMissingError(CommandError):
    """A topic that is to be read is not there: `plexy-ledger topics` creates them."""


class JournalError(CommandError):
    """No account can be made of the journal; the message names the record, and what to do."""


class LogFileError(CommandError):
    """A file of a log is damaged, or the topic has other records; the message says where."""


class NotWrittenError(CommandError):
    """Kafka did not acknowledge what was to be written, or somebody else writes there too."""


class NotRebuiltError(CommandError):
    """A version can't be made: there is no log, or the version is there; the message says which."""


class ViewError(CommandError):
    """An order that is in Kafka can't be read from the worker's views."""


def exit_code(error: Exception) -> int | None:
    """Return the exit code that stands for an error; ``None`` for a bug of ours."""
    # Only now: what raised the error is loaded already, and `--help` needs none of it.
    from runtime.internals import MissingInternalError  # noqa: PLC0415

    if isinstance(error, MissingInternalError):
        # The imports below would raise it again.
        return FAILED
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from cli.kafka.distribution import EmbeddedKafkaError  # noqa: PLC0415
    from runtime.kafka.identities import ExpirationError  # noqa: PLC0415
    from runtime.kafka.topic_looks import TopicsError  # noqa: PLC0415
    from runtime.settings import SettingsError  # noqa: PLC0415

    if isinstance(error, WrongOptionError | SettingsError):
        return WRONG
    # OSError: a folder that can't be written, a disk that is full; its text names the file.
    failures = (CommandError, EmbeddedKafkaError, TopicsError, ExpirationError, KafkaError, OSError)
    return FAILED if isinstance(error, failures) else None
