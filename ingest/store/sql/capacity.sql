-- name: capacity_create_database
-- A database of the calibration's own; it holds nobody's catalogs.
CREATE DATABASE {name}

-- name: capacity_drop_database
-- Its end, whoever is still connected.
DROP DATABASE IF EXISTS {name} WITH (FORCE)

-- name: capacity_backends
-- The server processes of the engine's writers.
SELECT split_part(application_name, ' ', 2), pid
FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'ingest writer-%%'

-- name: capacity_own_backend
-- The server process of this connection, the server's version, and its setting that decides about full-page images.
SELECT pg_backend_pid(), current_setting('server_version'),
       extract(epoch FROM current_setting('checkpoint_timeout')::interval)::integer

-- name: capacity_wal_bytes
-- How much WAL there has been since the cluster was made.
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint

-- name: capacity_commit
-- The smallest transaction that has to reach the disk.
SELECT pg_logical_emit_message(true, 'ingest', 'commit')

-- name: capacity_checkpoint
-- So that the first change of every page is followed by its full image, as after any checkpoint.
CHECKPOINT

-- name: capacity_table_bytes
-- What each table takes with its indexes and TOAST, and its own pages.
SELECT relname, pg_total_relation_size(oid), pg_relation_size(oid) / 8192
FROM pg_class
WHERE relkind = 'r' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)

-- name: capacity_fleet
-- The fleet as it is stored: active nodes, mean resources, the median age of the catalogs against the newest.
SELECT count(*), avg(c.slots),
       extract(epoch FROM max(c.producer_timestamp) - percentile_disc(0.5) WITHIN GROUP (ORDER BY c.producer_timestamp)),
       pg_database_size(current_database())
FROM catalogs c
JOIN nodes n ON n.id = c.node_id
WHERE n.deactivated IS NULL AND n.expired IS NULL
