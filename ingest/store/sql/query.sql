-- Around the statements that store/query makes.

-- name: only_reads
-- For as long as the session lives. Plans are made once for all values, and never compiled: either takes longer than most
-- queries. Nobody can estimate how many rows come out of arrays: where the planner believes in one, it would compare each of
-- thousands with each of thousands that it keeps for that. Without keeping them it makes a hash of them.
SELECT set_config('default_transaction_read_only', 'on', false), set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('jit', 'off', false), set_config('enable_material', 'off', false),
       set_config('idle_in_transaction_session_timeout', %s, false)

-- name: has_replayed
SELECT NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= %(position)s::pg_lsn

-- name: written_so_far
-- The end of what was committed; null on a replica.
SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn()::text END

-- name: limit_query
SELECT set_config('statement_timeout', %(statement_timeout)s, true),
       set_config('idle_in_transaction_session_timeout', %(idle_timeout)s, true)

-- name: object_exists
-- Whether anything is known of a parent: {"catalog": a certname}, and so on.
SELECT CASE %(kind)s::text
    WHEN 'node' THEN EXISTS (SELECT FROM nodes n WHERE n.certname = %(name)s::text)
    WHEN 'catalog' THEN EXISTS (
        SELECT FROM catalogs c JOIN nodes n ON n.id = c.node_id WHERE n.certname = %(name)s::text)
    WHEN 'factset' THEN EXISTS (
        SELECT FROM node_facts f JOIN nodes n ON n.id = f.node_id WHERE n.certname = %(name)s::text)
    WHEN 'report' THEN EXISTS (
        SELECT FROM node_reports r
        WHERE r.hash = CASE WHEN %(name)s::text ~ '^([0-9a-f]{2})+$' THEN decode(%(name)s::text, 'hex') END)
    WHEN 'environment' THEN EXISTS (SELECT FROM environments e WHERE e.name = %(name)s::text)
    WHEN 'producer' THEN EXISTS (SELECT FROM producers p WHERE p.name = %(name)s::text)
END

-- name: count_population
-- Active and inactive nodes, and an estimate of all of their resources.
SELECT count(*) FILTER (WHERE n.deactivated IS NULL AND n.expired IS NULL),
       count(*) FILTER (WHERE n.deactivated IS NOT NULL OR n.expired IS NOT NULL),
       coalesce(sum(c.slots), 0)::bigint
FROM nodes n
LEFT JOIN catalogs c ON c.node_id = n.id

-- name: is_stored
-- Whether a command of that time, or a newer one, has been stored.
SELECT CASE %(command)s::text
    WHEN 'replace catalog' THEN EXISTS (
        SELECT FROM catalogs c JOIN nodes n ON n.id = c.node_id
        WHERE n.certname = %(certname)s::text AND c.producer_timestamp >= %(timestamp)s::timestamptz)
    WHEN 'replace facts' THEN EXISTS (
        SELECT FROM node_facts f JOIN nodes n ON n.id = f.node_id
        WHERE n.certname = %(certname)s::text AND f.producer_timestamp >= %(timestamp)s::timestamptz)
    WHEN 'store report' THEN EXISTS (
        SELECT FROM node_latest_reports l JOIN nodes n ON n.id = l.node_id
        WHERE n.certname = %(certname)s::text AND l.producer_timestamp >= %(timestamp)s::timestamptz)
    WHEN 'replace catalog inputs' THEN EXISTS (
        SELECT FROM node_inputs i JOIN nodes n ON n.id = i.node_id
        WHERE n.certname = %(certname)s::text AND i.producer_timestamp >= %(timestamp)s::timestamptz)
    WHEN 'configure expiration' THEN EXISTS (
        SELECT FROM node_expirations x JOIN nodes n ON n.id = x.node_id
        WHERE n.certname = %(certname)s::text AND x.producer_timestamp >= %(timestamp)s::timestamptz)
    WHEN 'deactivate node' THEN EXISTS (
        SELECT FROM nodes n
        LEFT JOIN catalogs c ON c.node_id = n.id
        WHERE n.certname = %(certname)s::text
          AND (n.deactivated IS NOT NULL OR c.producer_timestamp >= %(timestamp)s::timestamptz))
    ELSE false
END

-- name: replica_lag
-- How old what this server answers may be, in seconds; NULL: it is no replica. By what it has not replayed yet, because where
-- nothing is written its newest transaction is old, too; by that one's age where it receives nothing.
SELECT CASE
    WHEN NOT pg_is_in_recovery() THEN NULL
    WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
    ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)
END::float8
