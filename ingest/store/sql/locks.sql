-- name: find_lock_rows
SELECT key FROM node_locks

-- name: insert_lock_rows
INSERT INTO node_locks (key) SELECT unnest(%s::integer[]) ON CONFLICT DO NOTHING

-- name: begin_with_content
-- Shared with every writer: this mode keeps out no other of its kind, and garbage collection.
BEGIN; LOCK TABLE content_state IN ROW SHARE MODE

-- name: lock_nodes
-- Sorted before they are locked, so nobody waits in a circle. FOR UPDATE of a row of an unlogged table writes no WAL.
-- With them, and after them, in the order that everybody keeps: what garbage collection of the version before looks at; the
-- generation that it raises; whether COMMIT waits for a standby; and those of the version before's locks on nodes that are not
-- ours now.
WITH locked AS MATERIALIZED (
    SELECT count(*) AS rows
    FROM (SELECT FROM node_locks WHERE key = ANY (%s::integer[]) ORDER BY key FOR UPDATE) AS one
), shared AS MATERIALIZED (
    SELECT rows, pg_try_advisory_xact_lock_shared(%s) AS is_shared FROM locked
)
SELECT rows, is_shared, generation, current_setting('synchronous_standby_names') <> '', ARRAY(
    SELECT key FROM unnest(%s::integer[]) AS key
    WHERE CASE WHEN is_shared THEN NOT pg_try_advisory_xact_lock(%s, key) ELSE false END
)
FROM shared CROSS JOIN content_state

-- name: generation_and_nodes
-- The same once more, after a wait for the version before.
SELECT generation, ARRAY(
    SELECT key FROM unnest(%s::integer[]) AS key WHERE NOT pg_try_advisory_xact_lock(%s, key)
)
FROM content_state

-- name: try_lock_content
SELECT pg_try_advisory_xact_lock_shared(%s)

-- name: try_lock_content_alone
SELECT pg_try_advisory_xact_lock(%s)

-- name: is_content_free
-- Whether no writer is at work: asking for the lock means that those who come later wait.
SELECT NOT EXISTS (
    SELECT FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.mode = 'RowShareLock' AND l.relation = (
        SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = 'content_state' AND n.nspname = %(home)s
    ) AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
)

-- name: lock_content_alone
LOCK TABLE content_state IN EXCLUSIVE MODE

-- name: set_lock_timeout
SELECT set_config('lock_timeout', %s, true)

-- name: try_lock_migrations
SELECT pg_try_advisory_lock(%s)

-- name: unlock_migrations
SELECT pg_advisory_unlock(%s)

-- name: lock_schema
-- One migrating program at a time; what is only read stays readable.
LOCK TABLE schema_migrations IN SHARE ROW EXCLUSIVE MODE

-- name: advisory_holders
-- Of the advisory lock with that key, or of those with it and one of the second keys. Who may write our tables may be
-- one of us.
SELECT l.objid::bigint, l.pid, coalesce(r.rolname::text, 'a prepared transaction'), coalesce(a.application_name, ''),
       coalesce(has_table_privilege(a.usesysid, c.oid, 'UPDATE') OR pg_has_role(a.usesysid, current_user, 'MEMBER'), false)
FROM pg_locks l
JOIN pg_class c ON c.relname = 'catalogs'
JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = %(home)s
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_roles r ON r.oid = a.usesysid
WHERE l.locktype = 'advisory' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND CASE WHEN %(keys)s::bigint[] IS NULL THEN l.objsubid = 1 AND l.classid = 0 AND l.objid = %(key)s::bigint::oid
      ELSE l.objsubid = 2 AND l.classid = %(key)s::bigint::oid AND l.objid::bigint = ANY (%(keys)s::bigint[]) END
ORDER BY l.pid
