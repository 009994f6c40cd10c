"""Every program runs if it can write only to `LEDGER_DATA_DIR`, and not even to `/tmp`."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cli.kafka.broker import EmbeddedKafka
from tests.ingest.conftest import SECRET
from tests.kafka.answers import deliver
from tests.kafka.harness import WorkerProcess, environment, event, free_port, until, wait_folded
from tests.kafka.programs import wait_ingress

# This script runs a command in a mount namespace in which only one folder is writable.
READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
awk '{print $5}' /proc/self/mountinfo | grep -v -e "^$1$" -e ^/proc -e ^/sys -e ^/dev | \\
while read -r point; do mount -o remount,bind,ro "$point" || true; done
shift
exec "$@"
"""
UNSHARE = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh"]


def is_allowed() -> bool:
    with TemporaryDirectory() as folder:
        shows = f"touch {folder}/x && ! touch {folder}/../x && ! touch /x"
        try:
            done = subprocess.run(
                [*UNSHARE, folder, "sh", "-c", shows], capture_output=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == 0


pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not is_allowed(), reason="a mount namespace requires root"),
]


def read_only(env: Mapping[str, str], folder: Path, *arguments: str) -> WorkerProcess:
    """Return a process whose command can write to only one folder, and has no home folder."""
    given = {**env, "HOME": "/nonexistent", "TMPDIR": "/tmp"}  # noqa: S108
    command = [*UNSHARE, str(folder), sys.executable, "-m", "cli", *arguments]
    started = WorkerProcess(given, command)
    started.log_file = folder.parent / f"{arguments[0]}.log"
    return started


def test_every_program_writes_to_its_data_folder_and_nowhere_else(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    env = environment(
        kafka.bootstrap,
        data,
        webhook_secrets=SECRET,
        ingest_port=free_port(),
        ingest_metrics_port=free_port(),
        ingest_processes=2,
        audit_port=free_port(),
    )
    with read_only(env, data, "topics") as topics:
        assert topics.wait(90) == 0, topics.tail()
    ingress, worker = read_only(env, data, "ingest"), read_only(env, data, "worker")
    with ingress, worker, read_only(env, data, "audit") as audit:
        worker.wait_ready(120)
        wait_ingress(ingress)
        deliver(env, event(1, merchantReference="ord_1"))
        wait_folded(env, worker)
        audit_env = env | {"LEDGER_WEB_PORT": env["LEDGER_AUDIT_PORT"]}
        audit.env = audit_env
        until(lambda: audit.logged("audit"), within_s=60, what=f"a round\n{audit.tail()}")
        for command in (
            ("status",),
            ("verify",),
            ("doctor", "ingest", "worker"),
            ("rejected", "list"),
            ("export-log", str(data / "log")),
            ("import-log", "--check", str(data / "log")),
            ("export", "--format", "csv"),
            ("settings",),
        ):
            with read_only(env, data, *command) as ran:
                code = ran.wait(120)
                printed = ran.log_file.read_text()
                assert (code, "Traceback" in printed) == (0, False), printed
        assert not audit.logged("difference")


def test_a_folder_that_can_t_be_written_is_reported_with_its_setting(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    env = environment(kafka.bootstrap, data, webhook_secrets=SECRET)
    for command, names in (
        (("worker",), "LEDGER_DATA_DIR"),
        (("doctor", "worker"), "LEDGER_DATA_DIR"),
        (("rebuild",), "LEDGER_DATA_DIR"),
        (("export-log", str(data / "log")), str(data)),
    ):
        with read_only(env, elsewhere, *command) as ran:
            code = ran.wait(120)
            printed = ran.log_file.read_text()
            assert (code != 0, "Traceback" in printed) == (True, False), (command, printed)
            assert names in printed, (command, printed)
    assert not list(data.iterdir())
