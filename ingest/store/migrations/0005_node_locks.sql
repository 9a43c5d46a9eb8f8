-- What a writer locks of each node that it works on: a row here, by a hash of its certname (ingest/store/locks.py).
--
-- Anybody who may connect can take any advisory lock and keep it; a row takes the right to UPDATE. Unlogged: a lock on
-- a row writes no WAL then. A crash empties the table, and writers put back what they need.
CREATE UNLOGGED TABLE node_locks (
    key integer PRIMARY KEY
);

-- Whoever may run the engine already may do so with what is new.
DO $$
DECLARE
    engine_role text;
BEGIN
    FOR engine_role IN
        SELECT DISTINCT pg_get_userbyid(granted.grantee)
        FROM pg_class c
        CROSS JOIN LATERAL aclexplode(c.relacl) AS granted
        WHERE c.oid = 'environments'::regclass AND granted.privilege_type = 'INSERT'
          AND granted.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON node_locks TO %I', engine_role);
    END LOOP;
END
$$;
