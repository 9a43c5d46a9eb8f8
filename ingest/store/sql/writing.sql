-- name: insert_nodes
INSERT INTO nodes (certname) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING

-- name: read_nodes
-- What is stored of these nodes, small parts only.
SELECT n.certname, n.id, n.deactivated, n.expired, c.producer_timestamp, c.transaction_uuid::text, c.raw_digest,
       c.content_digest, coalesce(c.slots, 0), c.edge_set_id, c.position_set_id, c.received_at, r.usual_s, r.odd_s,
       r.odd_for_s
FROM nodes n
LEFT JOIN catalogs c ON c.node_id = n.id
LEFT JOIN node_rhythms r ON r.node_id = n.id
WHERE n.certname = ANY (%s)

-- name: read_node_ids
SELECT n.certname, n.id FROM nodes n WHERE n.certname = ANY (%s)

-- name: read_chunks
SELECT node_id, chunk, resource_ids FROM catalog_resources WHERE node_id = ANY (%s)

-- name: read_exports
SELECT node_id, resource_ids FROM catalog_exports WHERE node_id = ANY (%s)

-- name: update_chunks
UPDATE catalog_resources t SET resource_ids = (%(c2)s::integer[])[s.first:s.last]
FROM unnest(%(c0)s::integer[], %(c1)s::integer[], %(c2_first)s::integer[], %(c2_last)s::integer[])
    AS s (node_id, chunk, first, last)
WHERE t.node_id = s.node_id AND t.chunk = s.chunk

-- name: insert_chunks
INSERT INTO catalog_resources (node_id, chunk, resource_ids)
SELECT node_id, chunk, (%(c2)s::integer[])[first:last]
FROM unnest(%(c0)s::integer[], %(c1)s::integer[], %(c2_first)s::integer[], %(c2_last)s::integer[])
    AS s (node_id, chunk, first, last)
ORDER BY node_id, chunk

-- name: delete_chunks
-- The catalog became shorter: chunks from the first free one on.
DELETE FROM catalog_resources t
USING unnest(%s::integer[], %s::integer[]) AS s (node_id, chunks)
WHERE t.node_id = s.node_id AND t.chunk >= s.chunks

-- name: update_exports
UPDATE catalog_exports t SET resource_ids = (%(c1)s::integer[])[s.first:s.last]
FROM unnest(%(c0)s::integer[], %(c1_first)s::integer[], %(c1_last)s::integer[]) AS s (node_id, first, last)
WHERE t.node_id = s.node_id

-- name: insert_exports
INSERT INTO catalog_exports (node_id, resource_ids)
SELECT node_id, (%(c1)s::integer[])[first:last]
FROM unnest(%(c0)s::integer[], %(c1_first)s::integer[], %(c1_last)s::integer[]) AS s (node_id, first, last)
ORDER BY node_id

-- name: update_catalogs
-- The guard against older catalogs stands here too: what was read before is only an estimate. What was stored from too
-- far in the future is newer than nothing.
UPDATE catalogs c
SET edge_set_id = s.edge_set_id, position_set_id = s.position_set_id, environment_id = s.environment_id,
    producer_id = s.producer_id, slots = s.slots, raw_digest = s.raw_digest,
    content_digest = s.content_digest,
    content_xid = CASE WHEN s.changed THEN pg_current_xact_id() ELSE c.content_xid END,
    code_id = s.code_id, job_id = s.job_id, version = s.version, transaction_uuid = s.transaction_uuid,
    catalog_uuid = s.catalog_uuid, producer_timestamp = s.producer_timestamp, received_at = s.received_at,
    stored_after_s = s.stored_after_s
FROM unnest(
    %s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::boolean[],
    %s::bytea[], %s::bytea[], %s::text[], %s::text[], %s::text[], %s::uuid[], %s::uuid[], %s::timestamptz[],
    %s::timestamptz[], %s::integer[]
) AS s (
    node_id, edge_set_id, position_set_id, environment_id, producer_id, slots, changed, raw_digest,
    content_digest, code_id, job_id, version, transaction_uuid, catalog_uuid, producer_timestamp, received_at, stored_after_s
)
WHERE c.node_id = s.node_id
  AND ((s.producer_timestamp, s.content_digest) >= (c.producer_timestamp, c.content_digest)
       OR c.producer_timestamp > s.received_at + %s::interval)

-- name: insert_catalogs
INSERT INTO catalogs (node_id, edge_set_id, position_set_id, environment_id, producer_id, slots, raw_digest,
    content_digest, content_xid, code_id, job_id, version, transaction_uuid, catalog_uuid,
    producer_timestamp, received_at, stored_after_s)
SELECT node_id, edge_set_id, position_set_id, environment_id, producer_id, slots, raw_digest, content_digest,
    pg_current_xact_id(), code_id, job_id, version, transaction_uuid, catalog_uuid, producer_timestamp,
    received_at, stored_after_s
FROM unnest(
    %s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::boolean[],
    %s::bytea[], %s::bytea[], %s::text[], %s::text[], %s::text[], %s::uuid[], %s::uuid[], %s::timestamptz[],
    %s::timestamptz[], %s::integer[]
) AS s (
    node_id, edge_set_id, position_set_id, environment_id, producer_id, slots, changed, raw_digest,
    content_digest, code_id, job_id, version, transaction_uuid, catalog_uuid, producer_timestamp, received_at, stored_after_s
)
ORDER BY node_id

-- name: reactivate_nodes
-- A catalog or facts newer than the deactivation, or any after an expiry. A deactivation from too far in the future ends
-- with the next of them.
UPDATE nodes n
SET deactivated = CASE WHEN n.deactivated >= s.producer_timestamp
                        AND n.deactivated <= s.received_at + %(future_tolerance)s::interval
                       THEN n.deactivated END,
    expired = NULL
FROM unnest(%(node_ids)s::integer[], %(producer_timestamps)s::timestamptz[], %(received_at)s::timestamptz[])
    AS s (node_id, producer_timestamp, received_at)
WHERE n.id = s.node_id
  AND (n.expired IS NOT NULL OR n.deactivated < s.producer_timestamp
       OR n.deactivated > s.received_at + %(future_tolerance)s::interval)

-- name: deactivate_nodes
-- Nothing happens to a node of which something newer is stored; what came from too far in the future is not newer.
UPDATE nodes n
SET deactivated = s.producer_timestamp
FROM unnest(%(certnames)s::text[], %(producer_timestamps)s::timestamptz[], %(received_at)s::timestamptz[])
    AS s (certname, producer_timestamp, received_at)
WHERE n.certname = s.certname
  AND (n.deactivated IS NULL OR n.deactivated < s.producer_timestamp
       OR n.deactivated > s.received_at + %(future_tolerance)s::interval)
  AND NOT EXISTS (
      SELECT FROM (
          SELECT node_id, producer_timestamp FROM catalogs
          UNION ALL SELECT node_id, producer_timestamp FROM node_facts
          UNION ALL SELECT node_id, producer_timestamp FROM node_latest_reports
          UNION ALL SELECT node_id, producer_timestamp FROM node_inputs
          UNION ALL SELECT node_id, producer_timestamp FROM node_expirations
      ) AS life
      WHERE life.node_id = n.id AND life.producer_timestamp > s.producer_timestamp
        AND life.producer_timestamp <= s.received_at + %(future_tolerance)s::interval
  )
RETURNING n.certname

-- name: stored_digests
-- For the decoders: what each node's sections were when they were stored last.
SELECT n.certname, c.raw_digest FROM catalogs c JOIN nodes n ON n.id = c.node_id WHERE c.content_xid >= %s::text::xid8

-- name: write_one_record
-- A COMMIT waits for a standby only when its transaction wrote to the WAL.
SELECT pg_logical_emit_message(true, 'ingest', '')

-- name: standing
-- The control file learns of a promotion with the next checkpoint only; the name of the WAL file at once, on a primary.
SELECT NOT in_recovery,
    CASE WHEN in_recovery THEN (SELECT timeline_id FROM pg_control_checkpoint())
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END,
    current_setting('synchronous_standby_names') <> ''
FROM (SELECT pg_is_in_recovery() AS in_recovery) AS server

-- name: standing_without_timeline
-- For a role that may not call what the other one does.
SELECT NOT pg_is_in_recovery(), 0, current_setting('synchronous_standby_names') <> ''

-- name: started_us
-- By which two servers are told apart: microseconds since 1970.
SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint
