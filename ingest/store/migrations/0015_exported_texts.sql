-- What is shown of an exported resource, made once: of a collector's row the names of its tags cost more than all the rest.
--
-- Housekeeping makes the texts and takes them away, so writers have nothing to do with them; where there is none yet it is made
-- as before. By digest, which says what the text is: none can be wrong, whatever happens to the resource.
CREATE TABLE exported_texts (
    digest     bytea PRIMARY KEY,
    tags       text NOT NULL,  -- JSON
    parameters text NOT NULL   -- JSON, as jsonb writes it
);

-- Whoever may run the engine, or serve, already may do so with what is new.
DO $$
DECLARE
    role_ record;
BEGIN
    BEGIN
        ALTER TABLE exported_texts ALTER COLUMN parameters SET COMPRESSION lz4;
    EXCEPTION WHEN feature_not_supported THEN
        NULL;  -- a server built without lz4 compresses with pglz
    END;
    FOR role_ IN
        SELECT pg_get_userbyid(granted.grantee) AS name, bool_or(granted.privilege_type = 'INSERT') AS is_engine
        FROM pg_class c
        CROSS JOIN LATERAL aclexplode(c.relacl) AS granted
        WHERE c.oid = 'resources'::regclass AND granted.privilege_type IN ('INSERT', 'SELECT')
          AND granted.grantee NOT IN (0, c.relowner)
        GROUP BY granted.grantee
    LOOP
        EXECUTE format('GRANT SELECT ON exported_texts TO %I', role_.name);
        IF role_.is_engine THEN
            EXECUTE format('GRANT INSERT, DELETE ON exported_texts TO %I', role_.name);
        END IF;
    END LOOP;
END
$$;
