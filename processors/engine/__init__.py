"""The engine: it carries chunks of records from a topic through a fold into a table, exactly once.

Input: a Faust app, and a fold (a function) for each of its topics. Output: the fold's records and
the fold's rows. The engine writes the records to Kafka, and the rows to RocksDB and to the table's
changelog. The engine knows nothing about payments; the modules that import the engine define the
folds and the rows.
"""
