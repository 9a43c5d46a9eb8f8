-- When nodes are heard of, how often they usually are, and who is overdue.
--
-- A regular node writes nothing here: what an unchanged catalog writes is its row in catalogs, as before.

-- How long after its receipt a catalog was stored, in seconds; null below one, so that it usually takes no room.
ALTER TABLE catalogs ADD COLUMN stored_after_s integer;

CREATE TABLE node_rhythms (
    node_id   integer PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    usual_s   integer,     -- its interval, learnt (ingest/core/node/freshness.py); null: not yet
    odd_s     integer,     -- what the last gaps were instead,
    odd_for_s integer,     -- and for how long
    heard_at  timestamptz  -- a catalog came that was older than the stored one: its producer's clock was set back
) WITH (fillfactor = 50);

-- One run may be missing, and be late besides. The same rule as in ingest/core/node/freshness.py.
CREATE FUNCTION overdue_after_s(usual_s double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 2 * usual_s + 600;

-- What is taken for the interval of a node that has not shown its own: the middle one of the others; Puppet's own at first.
CREATE VIEW fleet_rhythm AS
SELECT coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY usual_s), 1800) AS usual_s FROM node_rhythms;

-- A line for each node that is known by more than its name.
CREATE VIEW node_freshness AS
SELECT n.certname, n.deactivated, n.expired, e.name AS catalog_environment, heard.at AS heard_at, heard.silent_s,
       coalesce(r.usual_s, fleet.usual_s) AS usual_s, r.usual_s IS NOT NULL AS is_learnt,
       overdue_after_s(coalesce(r.usual_s, fleet.usual_s)) AS overdue_after_s,
       n.deactivated IS NULL AND n.expired IS NULL
           AND heard.silent_s > overdue_after_s(coalesce(r.usual_s, fleet.usual_s)) AS is_overdue,
       c.producer_timestamp AS catalog_timestamp,
       c.received_at + coalesce(c.stored_after_s, 0) * interval '1 second' AS catalog_stored_at,
       greatest(date_part('epoch', c.received_at - c.producer_timestamp), 0) + coalesce(c.stored_after_s, 0) AS catalog_lag_s,
       f.producer_timestamp AS facts_timestamp, l.producer_timestamp AS report_timestamp, l.status AS report_status,
       l.noop AS report_noop, encode(l.hash, 'hex') AS report_hash
FROM nodes n
LEFT JOIN catalogs c ON c.node_id = n.id
LEFT JOIN node_facts f ON f.node_id = n.id
LEFT JOIN node_latest_reports l ON l.node_id = n.id
LEFT JOIN node_rhythms r ON r.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
CROSS JOIN fleet_rhythm AS fleet
CROSS JOIN LATERAL (SELECT greatest(c.received_at, f.received_at, l.received_at, r.heard_at) AS at) AS last
CROSS JOIN LATERAL (SELECT last.at, date_part('epoch', now() - last.at) AS silent_s) AS heard
WHERE heard.at IS NOT NULL;

-- Whoever may run the engine, or read, already may do so with what is new.
DO $$
DECLARE
    role_ record;
BEGIN
    FOR role_ IN
        SELECT pg_get_userbyid(granted.grantee) AS name, bool_or(granted.privilege_type = 'INSERT') AS is_engine
        FROM pg_class c
        CROSS JOIN LATERAL aclexplode(c.relacl) AS granted
        WHERE c.oid IN ('environments'::regclass, 'latest_reports'::regclass)
          AND granted.privilege_type IN ('INSERT', 'SELECT') AND granted.grantee NOT IN (0, c.relowner)
        GROUP BY granted.grantee
    LOOP
        EXECUTE format('GRANT SELECT ON node_freshness, fleet_rhythm TO %I', role_.name);
        IF role_.is_engine THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON node_rhythms TO %I', role_.name);
        END IF;
    END LOOP;
END
$$;
