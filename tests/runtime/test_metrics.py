"""Prometheus reads exactly the declared metrics, under the project's own names."""

from prometheus_client.parser import text_string_to_metric_families

from runtime.metrics import Metrics


def test_exactly_the_declared_metrics_are_read():
    metrics = Metrics("shop")
    metrics.counter("sales", "sold items").inc(3)
    metrics.gauge("visitors", "current visitors", "room").labels("hall").set(2)
    metrics.histogram("visit_seconds", "duration of a visit", buckets=(1, 5)).observe(2)
    families = list(text_string_to_metric_families(metrics.page().decode()))
    assert [(each.name, each.kind, each.labels) for each in metrics.declared] == [
        ("plexy_ledger_shop_sales_total", "counter", ()),
        ("plexy_ledger_shop_visitors", "gauge", ("room",)),
        ("plexy_ledger_shop_visit_seconds", "histogram", ()),
    ]
    assert {(f.name, f.type, f.documentation) for f in families} == {
        (each.name.removesuffix("_total"), each.kind, each.text) for each in metrics.declared
    }
    assert {sample.name: sample.value for f in families for sample in f.samples} == {
        "plexy_ledger_shop_sales_total": 3,
        "plexy_ledger_shop_visitors": 2,
        "plexy_ledger_shop_visit_seconds_bucket": 1,
        "plexy_ledger_shop_visit_seconds_count": 1,
        "plexy_ledger_shop_visit_seconds_sum": 2,
    }


def test_two_programs_in_one_process_do_not_share_a_registry():
    first, second = Metrics("shop"), Metrics("shop")
    first.counter("sales", "sold items").inc()
    second.counter("sales", "sold items")
    assert b"plexy_ledger_shop_sales_total 1.0" in first.page()
    assert b"plexy_ledger_shop_sales_total 0.0" in second.page()
