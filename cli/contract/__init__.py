"""Generates the contract for readers of the published topics, from the types in ``ledger``.

``schemas``   a JSON Schema for each topic, and the comparison with its released version
``examples``  records that the rules produce from the demo's sample
``asyncapi``  the topics, keys, headers and guarantees, as AsyncAPI

``python -m cli.contract`` writes ``docs/events``.
"""
