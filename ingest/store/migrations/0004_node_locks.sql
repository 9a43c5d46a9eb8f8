-- What a writer locks of each node that it works on: a row here, by a hash of its certname (ingest/store/locks.py).
--
-- Anybody who may connect can take any advisory lock and keep it; a row takes the right to UPDATE. Unlogged: a lock on
-- a row writes no WAL then. A crash empties the table, and writers put back what they need.
CREATE UNLOGGED TABLE node_locks (
    key integer PRIMARY KEY
);
