"""What is promised to whoever reads the published topics, made from the types in ``ledger``.

``schemas``        a JSON Schema for each topic
``examples``       records that the rules make of the demo's sample
``asyncapi``       the topics, keys, headers and guarantees, as AsyncAPI
``compatibility``  what of a schema that was released may change, and what may not

``python -m cli.contract`` writes ``docs/events``.
"""
