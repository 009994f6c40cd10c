"""The engine: it carries chunks of records from a topic through a fold into a table, exactly once.

Input: a Faust app, and a fold for each of its topics. Output: the fold's records in Kafka, and its
rows in RocksDB and in the table's changelog. The engine knows nothing about payments; the modules
that import it define the folds and the rows.
"""
