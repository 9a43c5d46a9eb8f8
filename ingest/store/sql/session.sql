-- name: survey_session
-- The first words on a connection, under whatever search_path the site has set: names in full, no operator.
SELECT pg_catalog.to_regclass('schema_migrations')::pg_catalog.oid::pg_catalog.int8, pg_catalog.current_schemas(false)::pg_catalog.text[],
       pg_catalog.pg_backend_pid(), pg_catalog.current_setting('synchronous_commit')

-- name: pin_session
SELECT pg_catalog.count(pg_catalog.set_config(name, value, false))
FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[])) AS pinned (name, value)

-- name: discard_session
-- What another client of a pooler left in it.
DISCARD ALL

-- name: read_session
-- What was pinned, read back; what the server is; the backend, which must be the one of the first statement.
SELECT ARRAY(SELECT current_setting(name) FROM unnest(%s::text[]) WITH ORDINALITY AS n (name, place) ORDER BY place),
       current_setting('server_encoding'), current_database()::text, current_setting('session_replication_role'),
       pg_backend_pid()

-- name: find_home
-- The schema that our tables lie in: where the site's search_path finds them, else the only one that has them and belongs
-- to somebody whom we obey anyway. And whether others may put functions there, or have.
WITH found AS (
    SELECT c.oid, c.relnamespace, c.relowner FROM pg_class c WHERE c.oid = %(on_path)s::bigint::oid
    UNION ALL
    SELECT c.oid, c.relnamespace, c.relowner
    FROM pg_class c
    JOIN pg_database d ON d.datname = current_database()
    JOIN pg_roles r ON r.oid = c.relowner
    WHERE %(on_path)s::bigint IS NULL AND c.relname = 'schema_migrations' AND c.relkind = 'r' AND c.relpersistence = 'p'
      AND (r.rolsuper OR r.oid = d.datdba OR pg_has_role(r.oid, 'MEMBER'))
      AND (SELECT count(*) FROM pg_class t WHERE t.relnamespace = c.relnamespace AND t.relkind = 'r'
           AND t.relname IN ('catalogs', 'catalog_resources', 'content_state')) = 3
), home AS (
    SELECT n.oid, n.nspname, n.nspowner, n.nspacl, (SELECT count(*) FROM found) AS installed, found.relowner
    FROM pg_namespace n
    LEFT JOIN found ON found.relnamespace = n.oid
    WHERE n.oid = (SELECT min(relnamespace) FROM found)
       OR (NOT EXISTS (SELECT FROM found) AND n.nspname = %(created_in)s::text)
), trusted AS (
    SELECT r.oid
    FROM pg_roles r
    CROSS JOIN home
    WHERE r.rolsuper OR r.rolname = current_user OR r.oid IN (home.nspowner, home.relowner)
       OR r.oid = (SELECT datdba FROM pg_database WHERE datname = current_database())
)
SELECT home.nspname::text, home.installed::integer,
       EXISTS (
           SELECT FROM aclexplode(coalesce(home.nspacl, acldefault('n', home.nspowner))) AS acl
           WHERE acl.privilege_type = 'CREATE' AND acl.grantee NOT IN (SELECT oid FROM trusted)
       ),
       ARRAY(
           SELECT p.proname::text FROM pg_proc p
           WHERE p.pronamespace = home.oid AND p.proowner NOT IN (SELECT oid FROM trusted)
           UNION ALL
           SELECT o.oprname::text FROM pg_operator o
           WHERE o.oprnamespace = home.oid AND o.oprowner NOT IN (SELECT oid FROM trusted)
           LIMIT 10
       ),
       -- Whoever could make a table before we did could have made ours.
       (SELECT r.rolname::text FROM pg_roles r
        WHERE r.oid = home.relowner AND NOT r.rolsuper AND r.oid <> home.nspowner AND r.rolname <> current_user
          AND r.oid <> (SELECT datdba FROM pg_database WHERE datname = current_database()))
FROM home

-- name: find_our_table
SELECT to_regclass(format('%%I.schema_migrations', %s::text))::oid::bigint

-- name: set_path
SELECT set_config('search_path', %s, %s)

-- name: is_read_only
-- A standby, or a session that starts no transaction that may write.
SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean

-- name: begin
BEGIN

-- name: rollback
ROLLBACK

-- name: own_backend
SELECT pg_catalog.pg_backend_pid()

-- name: as_logged_in
-- A role may become another one at its login (ALTER ROLE ... SET role): sessions are the former's.
SET LOCAL ROLE NONE

-- name: end_session
-- Ends a session that this role left behind: by its process id and the name that no other session has. A process id is given
-- away again, and a pooler gives the same process to somebody else.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = %s AND pid <> pg_backend_pid() AND usename = current_user
  AND application_name = regexp_replace(current_setting('application_name'), ' [0-9a-f]{16}$', '') || ' ' || %s
