"""Generates, from the types in ``ledger``, the contract for readers of the published topics.

``schemas``        a JSON Schema for each topic
``examples``       records that the rules produce from the demo's sample
``asyncapi``       the topics, keys, headers and guarantees, as AsyncAPI
``compatibility``  the check that a schema does not break readers of its released form

``python -m cli.contract`` writes ``docs/events``.
"""
