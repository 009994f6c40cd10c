"""A worker logs the versions of its libraries when it starts."""

from structlog.testing import capture_logs

from processors.settings import WorkerSettings
from processors.topology import new_app
from processors.worker import Worker
from runtime import internals


def test_a_worker_logs_the_installed_and_the_expected_versions_of_its_libraries(
    monkeypatch, tmp_path
):
    monkeypatch.setattr("runtime.logs.configure", lambda *_: None)
    app = new_app(WorkerSettings(data_dir=tmp_path), worker_class=Worker, middlewares=[])
    with capture_logs() as lines:
        app.Worker(quiet=True).start_log()
    [line] = [each for each in lines if each["event"] == "libraries"]
    assert line["log_level"] == "info"
    assert line["installed"] == line["expected"]
    assert line["expected"].items() <= internals.expected().items()
    assert {"aiokafka", "faust-streaming", "mode-streaming", "rocksdict"} <= line["expected"].keys()
