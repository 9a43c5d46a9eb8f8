-- name: session_facts
-- What must be known of a server before a session relies on it, as the session finds it. Whoever made the settings of this
-- role or database chose the search_path: every name is in full.
SELECT pg_catalog.current_setting('server_encoding'), pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
       pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only'),
       pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('session_replication_role'),
       pg_catalog.pg_backend_pid(),
       (SELECT pg_catalog.array_agg(n.nspname ORDER BY n.nspname OPERATOR(pg_catalog.=)
                                    ANY (pg_catalog.current_schemas(false)) DESC, n.nspname)
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE c.relname OPERATOR(pg_catalog.=) 'schema_migrations'::pg_catalog.name
          AND c.relkind OPERATOR(pg_catalog.=) 'r'::pg_catalog."char"
          AND EXISTS (SELECT FROM pg_catalog.pg_class t
                      WHERE t.relnamespace OPERATOR(pg_catalog.=) n.oid
                        AND t.relname OPERATOR(pg_catalog.=) 'catalog_resources'::pg_catalog.name)),
       pg_catalog.current_schemas(false)

-- name: pin_session
-- Only what differs: some may not be set by everybody, and some are not there in older versions.
SELECT pg_catalog.count(pg_catalog.set_config(s.name, wanted.value, false))
FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[])) AS wanted (name, value)
JOIN pg_catalog.pg_settings s ON s.name OPERATOR(pg_catalog.=) wanted.name
WHERE s.setting OPERATOR(pg_catalog.<>) wanted.value

-- name: backend_pid
SELECT pg_catalog.pg_backend_pid()

-- name: strangers_in_schema
-- Who may create objects in the schema beside its owner, the owner of our tables, this role, and superusers.
SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'everybody' ELSE pg_get_userbyid(a.grantee) END
FROM pg_namespace n
CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
WHERE n.nspname = %(schema)s AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
  AND a.grantee <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
  AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.grantee AND r.rolsuper)
  AND a.grantee NOT IN (
      SELECT c.relowner FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'schema_migrations'
  )
ORDER BY 1

-- name: end_session
-- Ends a session that this role left behind: by its process id and the name that no other session has.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = %s AND pid <> pg_backend_pid() AND usename = current_user
  AND application_name = regexp_replace(current_setting('application_name'), ' [0-9a-f]{16}$', '') || ' ' || %s

-- name: lock_holders
-- Who holds one of these advisory locks (class, keys; a class of NULL: one key of 64 bits), and whether it could be an engine:
-- anybody may take them, and only those who may write mean anything by it.
SELECT DISTINCT a.pid, coalesce(a.usename, '?'), coalesce(a.application_name, ''),
       coalesce(has_table_privilege(a.usesysid, to_regclass('catalogs'), 'UPDATE'), false)
FROM pg_locks l
JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint, l.objid::bigint) IN (
      SELECT coalesce(%(class)s::bigint, 0), key & 4294967295 FROM unnest(%(keys)s::bigint[]) AS key
  )
ORDER BY 1

-- name: lock_timeout_ms
SELECT setting FROM pg_settings WHERE name = 'lock_timeout'

-- name: set_search_path
SELECT pg_catalog.set_config('search_path', %s, false)
