-- name: configure_expirations
-- The newest command counts.
INSERT INTO node_expirations AS e (node_id, expires, producer_timestamp)
SELECT n.id, s.expires, s.producer_timestamp
FROM unnest(%(certnames)s::text[], %(expires)s::boolean[], %(producer_timestamps)s::timestamptz[])
    AS s (certname, expires, producer_timestamp)
JOIN nodes n USING (certname)
ON CONFLICT (node_id) DO UPDATE SET expires = excluded.expires, producer_timestamp = excluded.producer_timestamp
WHERE excluded.producer_timestamp >= e.producer_timestamp
   OR e.producer_timestamp > now() + %(future_tolerance)s::interval
RETURNING (SELECT n.certname FROM nodes n WHERE n.id = e.node_id)

-- name: reactivate_configured_nodes
-- Who is told of is heard of, as with a catalog: PuppetDB has it so.
UPDATE nodes n
SET deactivated = CASE WHEN n.deactivated >= e.producer_timestamp AND n.deactivated <= now() + %(future_tolerance)s::interval
                       THEN n.deactivated END,
    expired = NULL
FROM node_expirations e
WHERE n.certname = ANY (%(certnames)s) AND e.node_id = n.id
  AND (n.expired IS NOT NULL OR n.deactivated < e.producer_timestamp
       OR n.deactivated > now() + %(future_tolerance)s::interval)

-- name: read_inputs
SELECT n.certname, n.id, n.deactivated IS NOT NULL OR n.expired IS NOT NULL, i.producer_timestamp, i.digest FROM nodes n LEFT JOIN node_inputs i ON i.node_id = n.id
WHERE n.certname = ANY (%s)

-- name: touch_inputs
-- The same inputs of a newer catalog.
UPDATE node_inputs i
SET producer_timestamp = s.producer_timestamp, received_at = s.received_at, catalog_uuid = s.catalog_uuid
FROM unnest(%s::integer[], %s::timestamptz[], %s::timestamptz[], %s::uuid[])
    AS s (node_id, producer_timestamp, received_at, catalog_uuid)
WHERE i.node_id = s.node_id

-- name: put_inputs
INSERT INTO node_inputs (node_id, producer_timestamp, received_at, catalog_uuid, digest, types, names)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (node_id) DO UPDATE
SET producer_timestamp = excluded.producer_timestamp, received_at = excluded.received_at,
    catalog_uuid = excluded.catalog_uuid, digest = excluded.digest, types = excluded.types, names = excluded.names
