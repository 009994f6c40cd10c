"""The manifests match Kubernetes' schemas, the programs' settings and ports, and each other.

These tests need no cluster. A package provides Kubernetes' own schemas. The tests also check rules
that a schema can't express, for example that each selector selects a workload.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from cli.main import app
from cli.settings import AuditSettings
from cli.settings_table import READ_BY, variables
from cli.verification.audit import Audit
from cli.verification.audit import create_app as create_audit
from ingest.app import create_app
from ingest.settings import LONGEST_ANSWER_S, IngestSettings
from processors.settings import WorkerSettings
from processors.views.access import _OPEN_ROUTES
from processors.worker import _STOPPED_WITHIN_S
from runtime.kafka.topics import TopicSettings
from runtime.settings import Settings, SettingsError
from tests.fakes import FakeLog

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The manifests are checked against the oldest version of Kubernetes that supports them, and against
# the newest version whose schemas the package has.
VERSIONS = ("1.30", kubernetes_validate.latest_version())

Object = dict[str, Any]
KUSTOMIZATION: Object = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())


def read(file: str) -> list[Object]:
    return list(yaml.safe_load_all((FOLDER / file).read_text()))


OBJECTS = {
    f"{o['kind']} {o['metadata']['name']}": o for f in KUSTOMIZATION["resources"] for o in read(f)
}
JOBS = {
    scrape["job_name"]
    for scrape in yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text())[
        "scrape_configs"
    ]
}
SECRETS = {
    secret["metadata"]["name"]: secret["stringData"] for secret in read("secrets.example.yaml")
}
KINDS: dict[str, type[Settings]] = {
    "topics": TopicSettings,
    "ingest": IngestSettings,
    "worker": WorkerSettings,
    "audit": AuditSettings,
}


def of_kind(*kinds: str) -> list[Object]:
    return [each for each in OBJECTS.values() if each["kind"] in kinds]


WORKLOADS = {
    each["metadata"]["labels"]["app.kubernetes.io/component"]: each
    for each in of_kind("Deployment", "StatefulSet", "Job")
}
SERVING = [name for name in WORKLOADS if name != "topics"]


def pod(program: str) -> Object:
    return WORKLOADS[program]["spec"]["template"]["spec"]


def container(program: str) -> Object:
    (only,) = pod(program)["containers"]
    return only


def labels(program: str) -> Mapping[str, str]:
    return WORKLOADS[program]["spec"]["template"]["metadata"]["labels"]


def selected(selector: Mapping[str, str]) -> list[str]:
    return [name for name in WORKLOADS if selector.items() <= labels(name).items()]


def from_objects(program: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each object that provides variables to the container, in Kubernetes' order."""
    for source in container(program)["envFrom"]:
        if "secretRef" in source:
            name = source["secretRef"]["name"]
            yield f"Secret {name}", SECRETS[name]
        else:
            name = f"ConfigMap {source['configMapRef']['name']}"
            yield name, OBJECTS[name]["data"]


def own_variables(program: str) -> dict[str, str]:
    """Return the container's own variables, with `$(NAME)` replaced as in Kubernetes."""
    metadata = {"metadata.name": f"{WORKLOADS[program]['metadata']['name']}-0"}
    metadata["metadata.namespace"] = KUSTOMIZATION["namespace"]
    found: dict[str, str] = {}
    for each in container(program).get("env", []):
        if "value" in each:
            # Only earlier variables are known; other references are left unchanged.
            value = re.sub(r"\$\((\w+)\)", lambda m: found.get(m[1], m[0]), each["value"])
        else:
            value = metadata[each["valueFrom"]["fieldRef"]["fieldPath"]]
        found[each["name"]] = value
    return found


def environment(program: str, tmp_path: Path, *, filled: bool = True) -> dict[str, str]:
    """Return the environment of a container, with the secrets filled in."""
    found = dict(re.findall(r"\b(LEDGER_\w+)=(\S+)", DOCKERFILE))
    for name, data in from_objects(program):
        secret = name.startswith("Secret ") and filled
        found |= {key: f"secret_of_{key}" if secret else value for key, value in data.items()}
    found |= own_variables(program)
    authority = tmp_path / "ca.crt"
    authority.touch()
    return found | {"LEDGER_KAFKA_CA_FILE": str(authority)}


def settings(program: str, tmp_path: Path) -> Any:
    return KINDS[program].from_environment(environment(program, tmp_path))


def test_the_kustomization_has_every_file_except_the_secrets():
    files = {path.name for path in FOLDER.glob("*.yaml")}
    assert set(KUSTOMIZATION["resources"]) == files - {"kustomization.yaml", "secrets.example.yaml"}
    assert len(OBJECTS) == sum(len(read(file)) for file in KUSTOMIZATION["resources"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_is_valid_against_kubernetes_own_schema(name, version):
    kubernetes_validate.validate(OBJECTS[name], version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_secrets_are_valid_and_the_schemas_find_mistakes(version):
    for secret in read("secrets.example.yaml"):
        kubernetes_validate.validate(secret, version, strict=True)
    worker = WORKLOADS["worker"]
    for mistake in ({"replicas": "two"}, {"replica": 2}):
        wrong = {**worker, "spec": worker["spec"] | mistake}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, version, strict=True)


def test_each_program_has_a_workload_that_runs_its_command():
    assert sorted(WORKLOADS) == sorted(KINDS)
    for name in WORKLOADS:
        assert container(name)["args"] == [name]
        assert name in typer.main.get_command(app).commands
        assert "command" not in container(name), (
            "unset `command`, so that the image's entry point runs"
        )
    assert 'ENTRYPOINT ["plexy-ledger"]' in DOCKERFILE


def test_every_workload_runs_the_image_of_this_version():
    assert KUSTOMIZATION["images"] == [{"name": "plexy-ledger", "newTag": PROJECT["version"]}]
    assert {container(name)["image"] for name in WORKLOADS} == {"plexy-ledger"}


@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.iterdir()))
def test_every_named_setting_exists(file):
    known = {name for command in READ_BY for name in variables(command)}
    assert set(re.findall(r"\bLEDGER_\w+", (FOLDER / file).read_text())) - known == set()


@pytest.mark.parametrize("program", WORKLOADS)
def test_the_settings_of_a_program_pass_its_own_check(program, tmp_path):
    assert len(settings(program, tmp_path).bootstrap_servers) == 3


@pytest.mark.parametrize("program", WORKLOADS)
def test_a_program_reads_every_variable_that_is_set_only_for_it(program):
    secrets = chain.from_iterable(
        data for name, data in from_objects(program) if name.startswith("Secret ")
    )
    own = {*secrets, *own_variables(program)} - {"POD_NAME", "POD_NAMESPACE"}
    assert own <= set(variables(program))


def test_all_programs_agree_on_the_topics_and_the_version(tmp_path):
    for name in (variable.removeprefix("LEDGER_").lower() for variable in variables("topics")):
        if name not in {"kafka_username", "kafka_password", "kafka_ca_file"}:
            values = {
                getattr(settings(p, tmp_path), name, None) for p in WORKLOADS if p != "ingest"
            }
            assert len({str(value) for value in values}) == 1, name


@pytest.mark.parametrize("program", WORKLOADS)
def test_with_the_unchanged_example_nothing_starts_and_the_message_names_the_setting(
    program, tmp_path
):
    with pytest.raises(SettingsError, match="set LEDGER_KAFKA_USERNAME"):
        KINDS[program].from_environment(environment(program, tmp_path, filled=False))


@pytest.mark.parametrize(
    ("program", "variable"),
    [
        ("ingest", "LEDGER_WEBHOOK_SECRETS"),
        ("audit", "LEDGER_WEBHOOK_SECRETS"),
        ("worker", "LEDGER_API_TOKEN"),
        ("audit", "LEDGER_API_TOKEN"),
    ],
)
def test_without_its_own_secret_a_program_does_not_start(program, variable, tmp_path):
    with pytest.raises(SettingsError, match=variable):
        KINDS[program].from_environment(environment(program, tmp_path) | {variable: ""})


def test_no_file_contains_a_secret_and_only_programs_that_need_a_secret_get_it():
    assert {value for data in SECRETS.values() for value in data.values()} == {""}
    for path in FOLDER.iterdir():
        assert "whsec_" not in path.read_text()
        assert "ALLOW_UNSIGNED" not in path.read_text()
    given = {p: {key for name, data in from_objects(p) for key in data} for p in WORKLOADS}
    assert {p for p, keys in given.items() if "LEDGER_WEBHOOK_SECRETS" in keys} == {
        "ingest",
        "audit",
    }
    assert {p for p, keys in given.items() if "LEDGER_API_TOKEN" in keys} == {"worker", "audit"}
    used = {name for p in WORKLOADS for name, _ in from_objects(p)}
    assert {f"Secret {name}" for name in SECRETS} <= used


def test_uncommenting_the_secrets_makes_a_worker_check_signatures(tmp_path):
    text = (FOLDER / "secrets.example.yaml").read_text()
    text, lines = re.subn(r"(?m)^  # (LEDGER_WEBHOOK_SECRETS: )", r"  \1", text)
    assert lines == 1
    (own,) = [
        each["stringData"]
        for each in yaml.safe_load_all(text)
        if each["metadata"]["name"] == "plexy-ledger-worker"
    ]
    assert settings("worker", tmp_path).trust is None
    filled = environment("worker", tmp_path) | {name: f"secret_of_{name}" for name in own}
    assert WorkerSettings.from_environment(filled).trust is not None


@pytest.mark.parametrize("program", SERVING)
def test_a_container_declares_exactly_the_ports_that_its_program_opens_beyond_loopback(
    program, tmp_path
):
    own = settings(program, tmp_path)
    listens = {
        "ingest": lambda: {
            own.ingest_port: own.ingest_host,
            own.ingest_metrics_port: own.ingest_metrics_host,
        },
        "worker": lambda: {own.web_port: own.web_bind},
        "audit": lambda: {own.audit_port: own.audit_host},
    }[program]()
    assert set(listens.values()) == {"0.0.0.0"}  # noqa: S104
    assert [each["containerPort"] for each in container(program)["ports"]] == list(listens)


@pytest.mark.parametrize("program", SERVING)
def test_each_probe_requests_a_path_that_its_program_serves_and_only_readiness_requests_readyz(
    program, tmp_path
):
    own = settings(program, tmp_path)
    served = {
        "ingest": lambda: {route.path for route in create_app(own, FakeLog()).routes},
        "worker": lambda: set(_OPEN_ROUTES),
        "audit": lambda: {route.path for route in create_audit(Audit(own)).routes},
    }[program]()
    port, *_metrics = container(program)["ports"]
    for probe, path in (
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ):
        asked = container(program).get(probe)
        if asked is None:
            assert (program, probe) == ("audit", "startupProbe"), (
                "only the audit needs no startup probe, because it listens at once"
            )
            continue
        assert path in served
        assert asked["httpGet"] == {"path": path, "port": port["name"]}


@pytest.mark.parametrize("service", of_kind("Service"), ids=lambda each: each["metadata"]["name"])
def test_a_service_leads_to_a_named_port_of_one_program(service):
    (program,) = selected(service["spec"]["selector"])
    names = {port["name"] for port in container(program)["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


@pytest.mark.parametrize("program", SERVING)
def test_a_workload_selects_its_own_pods_and_no_other_pods(program):
    assert selected(WORKLOADS[program]["spec"]["selector"]["matchLabels"]) == [program]
    for spread in pod(program).get("topologySpreadConstraints", []):
        assert selected(spread["labelSelector"]["matchLabels"]) == [program]


def test_at_most_one_pod_of_a_program_is_evicted_at_a_time():
    budgets = {
        program: each["spec"]["maxUnavailable"]
        for each in of_kind("PodDisruptionBudget")
        for program in selected(each["spec"]["selector"]["matchLabels"])
    }
    assert budgets == {"ingest": 1, "worker": 1}
    assert all(WORKLOADS[name]["spec"]["replicas"] > 1 for name in budgets)
    ingest = WORKLOADS["ingest"]["spec"]["strategy"]["rollingUpdate"]
    assert ingest == {"maxUnavailable": 0, "maxSurge": 1}


def test_a_worker_is_reached_by_the_stable_name_of_its_pod(tmp_path):
    spec = WORKLOADS["worker"]["spec"]
    service = OBJECTS[f"Service {spec['serviceName']}"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"], (
        "the other workers must be able to reach a worker that is still recovering"
    )
    assert selected(service["selector"]) == ["worker"]
    namespace = KUSTOMIZATION["namespace"]
    own = settings("worker", tmp_path)
    assert own.web_host == f"plexy-ledger-worker-0.{spec['serviceName']}.{namespace}.svc"
    # The worker announces this host together with `web_port`, so the headless Service must declare
    # the same port.
    assert [port["port"] for port in service["ports"]] == [own.web_port]


def test_a_worker_has_its_own_disk_for_its_data_and_writes_nowhere_else(tmp_path):
    spec = WORKLOADS["worker"]["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    mounts = {mount["name"]: mount for mount in container("worker")["volumeMounts"]}
    data_dir = settings("worker", tmp_path).data_dir
    assert mounts[claim["metadata"]["name"]]["mountPath"] == str(data_dir)
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert f"--home-dir {data_dir} " in DOCKERFILE
    for program in WORKLOADS:
        declared = {volume["name"] for volume in pod(program)["volumes"]}
        for mount in container(program)["volumeMounts"]:
            ours = program == "worker" and mount["name"] == claim["metadata"]["name"]
            assert ours or (mount["name"] in declared and mount["readOnly"])


@pytest.mark.parametrize("program", WORKLOADS)
def test_the_brokers_certificate_authority_is_mounted_at_the_configured_path(program):
    (volume,) = [each for each in pod(program)["volumes"] if each["name"] == "kafka"]
    (mount,) = [m for m in container(program)["volumeMounts"] if m["name"] == "kafka"]
    looked_for = OBJECTS["ConfigMap plexy-ledger"]["data"]["LEDGER_KAFKA_CA_FILE"]
    assert looked_for == f"{mount['mountPath']}/ca.crt"
    # The ConfigMap is not among the objects, because applying an example would overwrite the
    # operator's own ConfigMap.
    name = volume["configMap"]["name"]
    assert f"ConfigMap {name}" not in OBJECTS
    assert f"create configmap {name} --from-file=ca.crt" in PAGE


@pytest.mark.parametrize("program", WORKLOADS)
def test_a_pod_has_no_unneeded_privileges(program):
    (user,) = re.findall(r"(?m)^USER (\S+)$", DOCKERFILE)
    spec = pod(program)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False, (
        "otherwise a Service's variables could look like our settings"
    )
    context = spec["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"]) == (True, int(user))
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert ("fsGroup" in context) == (program == "worker")
    assert container(program)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container(program)["resources"]["limits"].keys() == {"memory"}
    enforced = OBJECTS["Namespace plexy-ledger"]["metadata"]["labels"]
    assert enforced["pod-security.kubernetes.io/enforce"] == "restricted"
    assert KUSTOMIZATION["namespace"] == "plexy-ledger"


@pytest.mark.parametrize(
    ("program", "ends_within_s"),
    [("ingest", LONGEST_ANSWER_S), ("worker", _STOPPED_WITHIN_S)],
)
def test_a_deleted_pod_has_time_to_end_cleanly(program, ends_within_s):
    waits_s = container(program)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(program)["terminationGracePeriodSeconds"] >= waits_s + 1.5 * ends_within_s


def test_there_are_no_more_workers_than_partitions_and_fewer_standbys_than_workers(tmp_path):
    own, spec = settings("worker", tmp_path), WORKLOADS["worker"]["spec"]
    assert own.standby_replicas < spec["replicas"] <= own.partitions
    assert spec["podManagementPolicy"] == "Parallel"
    assert (own.replication_factor, own.min_insync_replicas) == (3, 2)


def test_a_network_policy_opens_only_ports_that_its_pods_have():
    for policy in of_kind("NetworkPolicy"):
        programs = selected(policy["spec"]["podSelector"].get("matchLabels", {}))
        assert programs
        for rule in policy["spec"].get("ingress", []):
            (program,) = programs
            names = {port["name"] for port in container(program)["ports"]}
            assert {port["port"] for port in rule["ports"]} <= names
            for source in rule["from"]:
                inside = source.get("podSelector", {}).get("matchLabels", {})
                assert not inside or selected(inside) in (["worker"], ["audit"])


def test_all_pods_reach_the_brokers_and_all_other_traffic_is_denied_by_default():
    nothing = OBJECTS["NetworkPolicy plexy-ledger-nothing"]["spec"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    policy = OBJECTS["NetworkPolicy plexy-ledger-kafka"]["spec"]
    assert selected(policy["podSelector"]["matchLabels"]) == list(WORKLOADS)
    _names, brokers = policy["egress"]
    servers = OBJECTS["ConfigMap plexy-ledger"]["data"]["LEDGER_KAFKA_BOOTSTRAP"].split(",")
    assert {int(server.rpartition(":")[2]) for server in servers} == {
        port["port"] for port in brokers["ports"]
    }
    for program in ("worker", "audit"):
        (workers,) = OBJECTS[f"NetworkPolicy plexy-ledger-{program}"]["spec"]["egress"]
        assert selected(workers["to"][0]["podSelector"]["matchLabels"]) == ["worker"]
        own = OBJECTS["NetworkPolicy plexy-ledger-worker"]["spec"]["ingress"]
        let_in = [source for rule in own for source in rule["from"] if "podSelector" in source]
        assert [program] in [selected(each["podSelector"]["matchLabels"]) for each in let_in]


def test_the_audit_reaches_the_workers_through_their_service(tmp_path):
    own = settings("audit", tmp_path)
    service = OBJECTS[f"Service {own.web_bind}"]["spec"]
    assert selected(service["selector"]) == ["worker"]
    assert [port["port"] for port in service["ports"]] == [own.web_port]


def test_the_page_names_every_file_and_only_existing_objects():
    for path in FOLDER.glob("*.yaml"):
        assert path.name in PAGE
    known = {name.split()[1] for name in OBJECTS} | {"plexy-ledger-worker-0", "plexy-ledger-kafka"}
    known |= JOBS
    assert set(re.findall(r"\bplexy-ledger-[a-z0-9-]+\b", PAGE)) <= known
    for command in re.findall(r"-- plexy-ledger (\w+)", PAGE):
        assert command in typer.main.get_command(app).commands


def test_the_page_lists_each_prometheus_job_with_its_address():
    rows = dict(re.findall(r"(?m)^    \| `([\w-]+)` \| `([\w.:-]+)` \|", PAGE))
    assert set(rows) == JOBS
    for where in rows.values():
        service, namespace, port = re.split("[.:]", where)
        spec = OBJECTS[f"Service {service}"]["spec"]
        assert namespace == KUSTOMIZATION["namespace"]
        assert int(port) in {each["port"] for each in spec["ports"]}
        assert spec["publishNotReadyAddresses"]


def test_the_overlay_on_the_page_changes_existing_objects():
    (text,) = re.findall(r"(?s)   ```yaml\n(.*?)   ```", PAGE)
    overlay = yaml.safe_load(text)
    assert overlay["resources"] == ["<this repository>/deploy/kubernetes"]
    assert (ROOT / overlay["resources"][0].removeprefix("<this repository>/")) == FOLDER
    assert [image["name"] for image in overlay["images"]] == ["plexy-ledger"]
    (patch,) = (yaml.safe_load(each["patch"]) for each in overlay["patches"])
    patched = OBJECTS[f"{patch['kind']} {patch['metadata']['name']}"]
    assert patch["metadata"]["namespace"] == KUSTOMIZATION["namespace"]
    assert patch["data"].keys() <= patched["data"].keys()
