"""Reads a page of metrics with Prometheus' own parser."""

from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Scraped:
    """The samples of one page; callers name a metric without the prefix of the program."""

    def __init__(self, page: str, program: str) -> None:
        self.page = page
        self._prefix = f"plexy_ledger_{program}_"
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    @classmethod
    def of(cls, url: str, program: str, headers: Mapping[str, str] | None = None) -> "Scraped":
        """Read a page as Prometheus does."""
        answer = httpx.get(url, headers=headers, trust_env=False, timeout=10)
        assert answer.status_code == 200, answer.text
        return cls(answer.text, program)

    def value(self, name: str, **labels: object) -> float:
        """Return one sample's value."""
        wanted = frozenset((key, str(value)) for key, value in labels.items())
        return self._samples[self._prefix + name, wanted]

    def by(self, label: str, name: str) -> dict[str, float]:
        """Sum a metric's samples for each value of one label; zeros are left out."""
        found: dict[str, float] = {}
        for (sample, labels), value in self._samples.items():
            if sample == self._prefix + name and value:
                key = dict(labels)[label]
                found[key] = found.get(key, 0) + value
        return found

    def has(self, name: str) -> bool:
        """Return whether the page has a sample with this name."""
        return any(sample == self._prefix + name for sample, _ in self._samples)
