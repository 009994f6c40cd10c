"""The examples in the docstrings of ``ledger`` give the results that the docstrings show."""

import doctest
import importlib
import pkgutil

import pytest

import ledger

MODULES = [module.name for module in pkgutil.walk_packages(ledger.__path__, "ledger.")]
WITH_EXAMPLES = {
    "ledger.envelope",
    "ledger.journal",
    "ledger.money",
    "ledger.topics",
    "ledger.verification.fields",
}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_a_module_are_correct(name):
    failed, attempted = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
    assert attempted or name not in WITH_EXAMPLES
