"""The examples in the ledger's docstrings do what they show."""

import doctest
import importlib
import pkgutil

import pytest

import ledger

MODULES = [f"ledger.{module.name}" for module in pkgutil.iter_modules(ledger.__path__)]
WITH_EXAMPLES = {
    "ledger.fields",
    "ledger.envelope",
    "ledger.journal",
    "ledger.money",
    "ledger.topics",
}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert attempted or name not in WITH_EXAMPLES
