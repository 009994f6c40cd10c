"""The alarms and the dashboard name only metrics, labels and pages that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from cli.metrics_table import as_markdown, programs

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())
SCRAPES = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "plexy-ledger.json").read_text())
TESTS = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())

ALARMS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}
EXPRESSIONS = {name: rule["expr"] for name, rule in ALARMS.items()} | QUERIES

# `.ci/run` installs the tool into build/tools.
PROMTOOL = shutil.which("promtool") or shutil.which(str(ROOT / "build" / "tools" / "promtool"))

_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^]]*\]")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset"})
# A name may have a selector; a name before a bracket is a function. A number is matched as a whole,
# so that its letters do not count as a name.
_NAME = re.compile(r"\d[\w.]*|([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?\s*(\()?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*""')


def selected(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric of a PromQL expression, with the labels that the expression selects.

    >>> sorted(selected('sum by (job) (rate(a_total{b!~"c(d"}[5m])) / 2e3 > on (h) i'))
    [('a_total', {'b'}), ('i', set())]
    """
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    text = _RANGE.sub("", _GROUPING.sub(" ", text))
    for name, matchers, bracket in _NAME.findall(text):
        if name and not bracket and name not in _WORDS:
            yield name, set(_MATCHER.findall(matchers))


def grouped(expression: str) -> set[str]:
    """Return the labels that an expression groups by."""
    return {
        label.strip()
        for labels in _GROUPING.findall(expression)
        for label in labels.split(",")
        if label.strip()
    }


def known() -> dict[str, set[str]]:
    """Return the labels of every series that a scrape may return, by the series' name."""
    found = {"up": set[str]()}
    for metrics in programs().values():
        for metric in metrics.declared:
            labels = set(metric.labels)
            if metric.kind == "histogram":
                found[f"{metric.name}_bucket"] = labels | {"le"}
                found |= {f"{metric.name}_{suffix}": labels for suffix in ("sum", "count")}
            else:
                found[metric.name] = labels
        for family in metrics.registry.collect():
            if family.name.startswith("process_"):
                found |= {sample.name: set() for sample in family.samples}
    return {name: labels | {"job", "instance"} for name, labels in found.items()}


KNOWN = known()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_and_label_of_an_alarm_or_a_panel_exists(name):
    found = list(selected(EXPRESSIONS[name]))
    assert found
    for metric, labels in found:
        assert metric in KNOWN
        assert labels <= KNOWN[metric]
    assert grouped(EXPRESSIONS[name]) <= set.union(*(KNOWN[metric] for metric, _ in found))


@pytest.mark.parametrize("program", programs())
def test_a_scrape_returns_exactly_the_declared_metrics(program):
    metrics = programs()[program]
    families = {
        (f"{f.name}_total" if f.type == "counter" else f.name): f
        for f in metrics.registry.collect()
        if f.name.startswith("plexy_ledger_")
    }
    assert {name: (f.type, f.documentation) for name, f in families.items()} == {
        each.name: (each.kind, each.text) for each in metrics.declared
    }
    labels = {each.name: set(each.labels) for each in metrics.declared}
    for name, family in families.items():
        assert all(set(sample.labels) - {"le"} == labels[name] for sample in family.samples)


@pytest.mark.parametrize("program", programs())
def test_the_tables_of_metrics_have_a_line_for_each_metric_that_a_program_declares(program):
    _, _, section = as_markdown().partition(f"## {program}\n")
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line[:3] == "| `"]
    assert [row.split("`")[1] for row in rows] == [m.name for m in programs()[program].declared]


def test_every_metric_in_an_expression_is_found():
    expression = 'histogram_quantile(0.99, sum by (le) (rate(x_bucket{a="2"}[5m]))) > 1e3 unless y'
    assert list(selected(expression)) == [("x_bucket", {"a"}), ("y", set())]
    assert list(selected('time() - z{job=~"a(b|c)"} * on (job) group_left () 0.8')) == [
        ("z", {"job"})
    ]


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_says_how_urgent_it_is_and_links_to_an_existing_section(name):
    rule = ALARMS[name]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"(?m)^#+ (.+)$", (ROOT / page).read_text())
    assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert rule["annotations"]["summary"]
    # The first sentence gives the meaning, and the next sentence gives the remedy.
    assert re.fullmatch(r"[A-Z0-9].+\. [A-Z].+\.", rule["annotations"]["description"])


def test_every_alarm_with_the_severity_page_is_tested():
    tested = {
        each["alertname"]
        for test in TESTS["tests"]
        for each in test["alert_rule_test"]
        if each.get("exp_alerts")
    }
    assert {name for name, rule in ALARMS.items() if rule["labels"]["severity"] == "page"} <= tested


def test_prometheus_scrapes_every_job_that_an_alarm_or_a_panel_names():
    jobs = {scrape["job_name"] for scrape in SCRAPES["scrape_configs"]}
    asked = {job for text in EXPRESSIONS.values() for job in re.findall(r'job="([^"]+)"', text)}
    assert asked
    assert asked <= jobs


def test_panels_use_the_chosen_data_source_and_do_not_overlap():
    places: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        taken = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not taken & places, panel["title"]
        assert at["x"] + at["w"] <= 24
        places |= taken
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Yield the places at which ``kept`` lacks or changes a field of ``given``."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name in kept:
                yield from lost(value, kept[name], f"{path}/{name}")
            else:
                yield f"{path}/{name}"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, pair in enumerate(zip(given, kept, strict=True)):
            yield from lost(*pair, f"{path}/{number}")
    elif given != kept:
        yield path


def unknown_to_grafana(dashboard: dict[str, Any]) -> list[str]:
    """Return the fields of the dashboard that Grafana's own types lack."""
    register_default_plugins()
    kept = JSONEncoder(sort_keys=True).encode(Dashboard.from_json(dashboard))
    return list(lost(dashboard, json.loads(kept)))


def test_grafanas_own_types_have_every_field_of_the_dashboard():
    assert unknown_to_grafana(DASHBOARD) == []


def test_grafanas_own_types_reveal_misspelt_fields_at_any_level():
    wrong = json.loads(json.dumps(DASHBOARD))
    panel = next(each for each in wrong["panels"] if each["type"] == "timeseries")
    wrong["refesh"] = "30s"
    panel["options"]["legnd"] = panel["fieldConfig"]["defaults"]["unti"] = {}
    panel["targets"][0]["exrp"] = "up"
    found = {path.rpartition("/")[2] for path in unknown_to_grafana(wrong)}
    assert found == {"refesh", "legnd", "unti", "exrp"}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "check",
    [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts_test.yaml"],
        ["check", "config", "prometheus.yaml"],
    ],
    ids=" ".join,
)
def test_prometheus_own_tool_finds_nothing_wrong(check):
    done = subprocess.run(
        [PROMTOOL, *check], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize("name", QUERIES)
def test_prometheus_parses_each_query_of_the_dashboard(name, tmp_path):
    # Grafana replaces this variable with the interval of the panel.
    rule = {"record": "panel", "expr": QUERIES[name].replace("$__rate_interval", "1m")}
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": [rule]}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
