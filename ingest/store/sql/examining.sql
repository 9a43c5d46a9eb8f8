-- name: examine_server
-- What of the server, the database and the role decides whether an engine can work here, and for how long. In seconds: how far
-- its clock is from ours, given as the time at which this was sent.
SELECT extract(epoch FROM clock_timestamp())::float8,
       current_setting('server_version'),
       current_setting('max_connections')::integer
           - current_setting('superuser_reserved_connections')::integer
           - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())::integer,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user),
       (SELECT count(*) FROM pg_stat_activity WHERE usename = session_user AND pid <> pg_backend_pid())::integer,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
       (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid())::integer,
       current_setting('fsync')::boolean AND current_setting('full_page_writes')::boolean,
       current_user::text, current_database()::text,
       has_database_privilege(current_database(), 'TEMPORARY'),
       (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'ingest%%' AND datname = current_database()
        AND pid <> pg_backend_pid())::integer

-- name: may_create_schema
-- Whether this role may make our tables where they would be made.
SELECT has_schema_privilege(n.oid, 'CREATE') FROM pg_namespace n WHERE n.nspname = %s

-- name: lacking_privileges
-- The tables that an engine writes to, and this role may not.
SELECT c.relname::text
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND c.relname = ANY (%s)
  AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT'))
ORDER BY c.relname

-- name: examine_cluster
-- What a server knows of those beside it. The WAL's place is a number of bytes; a role without pg_read_all_stats (pg_monitor) sees
-- that there are standbys, and not what they are.
SELECT pg_is_in_recovery(),
       current_setting('synchronous_standby_names'),
       (SELECT count(*) FROM pg_stat_replication)::integer,
       (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))::integer,
       (SELECT count(*) FROM pg_stat_replication WHERE sync_state IS NULL)::integer,
       ((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) - '0/0')::bigint,
       coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)::float8,
       EXISTS (SELECT FROM pg_stat_wal_receiver),
       current_setting('wal_log_hints')::boolean OR current_setting('data_checksums')::boolean
