-- Whether a node may expire, and what its catalog was made from.

CREATE TABLE node_expirations (
    node_id            integer PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    expires            boolean NOT NULL,
    producer_timestamp timestamptz NOT NULL
);

CREATE TABLE node_inputs (
    node_id            integer PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    producer_timestamp timestamptz NOT NULL,
    received_at        timestamptz NOT NULL,
    catalog_uuid       uuid,
    digest             bytea NOT NULL,  -- of the inputs: the same ones are not written again
    types              text[] NOT NULL,
    names              text[] NOT NULL  -- as many
) WITH (fillfactor = 50);

-- Of all nodes: also of those that are deactivated or expired.
CREATE VIEW catalog_inputs AS
SELECT n.certname, i.producer_timestamp, i.catalog_uuid, input.type, input.name, n.deactivated, n.expired
FROM node_inputs i
JOIN nodes n ON n.id = i.node_id
CROSS JOIN LATERAL unnest(i.types, i.names) AS input (type, name);

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
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON node_expirations, node_inputs TO %I', engine_role);
    END LOOP;
END
$$;
