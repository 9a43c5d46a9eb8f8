-- name: take_housekeeping
-- A time in the future is of a clock that was set back.
UPDATE content_state SET house_kept_at = now()
WHERE house_kept_at IS NULL OR house_kept_at NOT BETWEEN now() - %s::interval AND now()
RETURNING house_kept_at

-- name: snapshot_xmin
-- The oldest transaction that this snapshot does not see all of.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text

-- name: unused_resources
SELECT r.id FROM resources r
WHERE NOT EXISTS (
    SELECT FROM (SELECT unnest(resource_ids) AS id FROM catalog_resources) AS used WHERE used.id = r.id
)

-- name: unused_edge_sets
SELECT s.id FROM edge_sets s WHERE NOT EXISTS (SELECT FROM catalogs c WHERE c.edge_set_id = s.id)

-- name: unused_position_sets
SELECT s.id FROM position_sets s WHERE NOT EXISTS (SELECT FROM catalogs c WHERE c.position_set_id = s.id)

-- name: unused_positions
SELECT p.id FROM positions p
WHERE NOT EXISTS (
    SELECT FROM (SELECT unnest(position_ids) AS id FROM position_sets) AS used WHERE used.id = p.id
)

-- name: unused_tags
SELECT t.id FROM tags t
WHERE NOT EXISTS (SELECT FROM (SELECT unnest(tag_ids) AS id FROM resources) AS used WHERE used.id = t.id)

-- name: unused_fact_bases
SELECT b.id FROM fact_bases b WHERE NOT EXISTS (SELECT FROM node_facts f WHERE f.base_id = b.id)

-- name: unused_fact_shapes
SELECT s.id FROM fact_shapes s WHERE NOT EXISTS (SELECT FROM fact_bases b WHERE b.shape_id = s.id)

-- name: unused_package_sets
SELECT s.id FROM package_sets s WHERE NOT EXISTS (SELECT FROM node_packages p WHERE p.set_id = s.id)

-- name: unused_package_versions
SELECT v.id FROM package_versions v
WHERE NOT EXISTS (SELECT FROM (SELECT unnest(package_ids) AS id FROM package_sets) AS used WHERE used.id = v.id)
  AND NOT EXISTS (SELECT FROM (SELECT unnest(added) AS id FROM node_packages) AS used WHERE used.id = v.id)

-- name: unused_environments
SELECT e.id FROM environments e
WHERE NOT EXISTS (SELECT FROM catalogs c WHERE c.environment_id = e.id)
  AND NOT EXISTS (SELECT FROM node_facts f WHERE f.environment_id = e.id)

-- name: unused_producers
SELECT p.id FROM producers p
WHERE NOT EXISTS (SELECT FROM catalogs c WHERE c.producer_id = p.id)
  AND NOT EXISTS (SELECT FROM node_facts f WHERE f.producer_id = p.id)

-- name: next_generation
UPDATE content_state SET generation = generation + 1

-- name: delete_resources
-- Catalogs written since the snapshot may have taken them up again. unnest, not = ANY: a hash join, because
-- writers wait meanwhile.
DELETE FROM resources r WHERE r.id = ANY (%(ids)s) AND NOT EXISTS (
    SELECT FROM (
        SELECT unnest(cr.resource_ids) AS id
        FROM catalogs c
        JOIN catalog_resources cr ON cr.node_id = c.node_id
        WHERE c.content_xid >= %(xmin)s::xid8
    ) AS used WHERE used.id = r.id
)

-- name: delete_edge_sets
DELETE FROM edge_sets s WHERE s.id = ANY (%(ids)s) AND NOT EXISTS (
    SELECT FROM catalogs c WHERE c.content_xid >= %(xmin)s::xid8 AND c.edge_set_id = s.id
)

-- name: delete_position_sets
DELETE FROM position_sets s WHERE s.id = ANY (%(ids)s) AND NOT EXISTS (
    SELECT FROM catalogs c WHERE c.content_xid >= %(xmin)s::xid8 AND c.position_set_id = s.id
)

-- name: delete_positions
-- A position set is content itself: one inserted since the snapshot has an id that was not there then.
DELETE FROM positions p WHERE p.id = ANY (%(ids)s) AND NOT EXISTS (
    SELECT FROM (
        SELECT unnest(s.position_ids) AS id FROM position_sets s WHERE age(s.xmin) <= age(%(xmin)s::xid8::xid)
    ) AS used WHERE used.id = p.id
)

-- name: delete_tags
DELETE FROM tags t WHERE t.id = ANY (%(ids)s) AND NOT EXISTS (
    SELECT FROM (
        SELECT unnest(r.tag_ids) AS id FROM resources r WHERE age(r.xmin) <= age(%(xmin)s::xid8::xid)
    ) AS used WHERE used.id = t.id
)

-- name: delete_fact_bases
-- By all nodes, here and below: their rows are narrow, and the bases and sets few.
DELETE FROM fact_bases b
WHERE b.id = ANY (%(ids)s) AND NOT EXISTS (SELECT FROM node_facts f WHERE f.base_id = b.id)

-- name: delete_fact_shapes
DELETE FROM fact_shapes s
WHERE s.id = ANY (%(ids)s) AND NOT EXISTS (SELECT FROM fact_bases b WHERE b.shape_id = s.id)

-- name: delete_package_sets
DELETE FROM package_sets s
WHERE s.id = ANY (%(ids)s) AND NOT EXISTS (SELECT FROM node_packages p WHERE p.set_id = s.id)

-- name: delete_package_versions
DELETE FROM package_versions v
WHERE v.id = ANY (%(ids)s)
  AND NOT EXISTS (SELECT FROM (SELECT unnest(package_ids) AS id FROM package_sets) AS used WHERE used.id = v.id)
  AND NOT EXISTS (SELECT FROM (SELECT unnest(added) AS id FROM node_packages) AS used WHERE used.id = v.id)

-- name: delete_environments
-- By all catalogs, not by content_xid: an unchanged catalog may name another environment.
DELETE FROM environments e
WHERE e.id = ANY (%(ids)s) AND NOT EXISTS (SELECT FROM catalogs c WHERE c.environment_id = e.id)
  AND NOT EXISTS (SELECT FROM node_facts f WHERE f.environment_id = e.id)

-- name: delete_producers
DELETE FROM producers p
WHERE p.id = ANY (%(ids)s) AND NOT EXISTS (SELECT FROM catalogs c WHERE c.producer_id = p.id)
  AND NOT EXISTS (SELECT FROM node_facts f WHERE f.producer_id = p.id)

-- name: forget_exported_texts
-- Without a lock: a text that is wanted again is written again.
DELETE FROM exported_texts x
WHERE NOT EXISTS (SELECT FROM resources r WHERE r.exported AND r.digest = x.digest)

-- name: exported_without_text
SELECT r.id FROM resources r
WHERE r.exported AND NOT EXISTS (SELECT FROM exported_texts x WHERE x.digest = r.digest)

-- name: write_exported_texts
INSERT INTO exported_texts (digest, tags, parameters)
SELECT r.digest, to_json(ARRAY(SELECT t.name FROM tags t WHERE t.id = ANY (r.tag_ids) ORDER BY t.name COLLATE "C"))::text,
       r.parameters::text
FROM resources r
WHERE r.id = ANY (%s::integer[]) AND r.exported
ON CONFLICT DO NOTHING

-- name: silent_nodes
SELECT n.id, n.certname FROM nodes n
LEFT JOIN catalogs c ON c.node_id = n.id
LEFT JOIN node_facts f ON f.node_id = n.id
LEFT JOIN node_latest_reports l ON l.node_id = n.id
LEFT JOIN node_inputs i ON i.node_id = n.id
WHERE n.deactivated IS NULL AND n.expired IS NULL
  AND greatest(c.received_at, f.received_at, l.received_at, i.received_at) < now() - %(ttl)s::interval
  AND NOT EXISTS (
      SELECT FROM node_expirations x
      WHERE x.node_id = n.id AND (NOT x.expires OR x.producer_timestamp >= now() - %(ttl)s::interval)
  )
ORDER BY n.certname COLLATE "C"

-- name: expire_nodes
-- Nothing heard for that long: out of every collector's sight, until something newer comes. Heard of is when facts, a
-- catalog, its inputs or a report came, whatever they say of their own time. Under the nodes' locks; whoever was heard of
-- meanwhile stays.
UPDATE nodes n SET expired = now()
WHERE n.id = ANY (%(ids)s) AND n.deactivated IS NULL AND n.expired IS NULL
  AND greatest((SELECT c.received_at FROM catalogs c WHERE c.node_id = n.id),
               (SELECT f.received_at FROM node_facts f WHERE f.node_id = n.id),
               (SELECT l.received_at FROM node_latest_reports l WHERE l.node_id = n.id),
               (SELECT i.received_at FROM node_inputs i WHERE i.node_id = n.id)) < now() - %(ttl)s::interval
  AND NOT EXISTS (
      SELECT FROM node_expirations x
      WHERE x.node_id = n.id AND (NOT x.expires OR x.producer_timestamp >= now() - %(ttl)s::interval)
  )
RETURNING n.certname

-- name: nodes_deactivated_in_future
SELECT id, certname FROM nodes WHERE deactivated > now() + %s::interval ORDER BY certname COLLATE "C"

-- name: deactivate_now
-- By a command from too far in the future: else its node would never be purged. Under the nodes' locks.
UPDATE nodes SET deactivated = now() WHERE id = ANY (%(ids)s) AND deactivated > now() + %(tolerance)s::interval

-- name: purgeable_nodes
SELECT n.id, n.certname FROM nodes n
WHERE coalesce(n.deactivated, n.expired) < now() - %s::interval
ORDER BY n.certname COLLATE "C"

-- name: purge_nodes
-- Under the nodes' locks; whoever came back meanwhile stays.
WITH gone AS (
    DELETE FROM nodes n
    WHERE n.id = ANY (%(ids)s) AND coalesce(n.deactivated, n.expired) < now() - %(ttl)s::interval
    RETURNING n.id
), chunks AS (
    DELETE FROM catalog_resources cr USING gone WHERE cr.node_id = gone.id
), exports AS (
    DELETE FROM catalog_exports x USING gone WHERE x.node_id = gone.id
)
SELECT count(*) FROM gone

-- name: nodes_without_catalog
-- Known by name only: of a deactivation, or of a message that was never stored.
SELECT n.id, n.certname FROM nodes n
WHERE (n.deactivated IS NULL OR n.deactivated < now() - %s::interval)
  AND NOT EXISTS (SELECT FROM catalogs c WHERE c.node_id = n.id)
  AND NOT EXISTS (SELECT FROM node_facts f WHERE f.node_id = n.id)
  AND NOT EXISTS (SELECT FROM node_latest_reports l WHERE l.node_id = n.id)
  AND NOT EXISTS (SELECT FROM node_inputs i WHERE i.node_id = n.id)
  AND NOT EXISTS (SELECT FROM node_expirations x WHERE x.node_id = n.id AND NOT x.expires)
ORDER BY n.certname COLLATE "C"

-- name: forget_nodes
-- Under the nodes' locks; whoever was heard of meanwhile stays, and who has reports, of plans perhaps. That is looked up node
-- by node: as a join it would read all reports.
DELETE FROM nodes n
WHERE n.id = ANY (%(ids)s) AND (n.deactivated IS NULL OR n.deactivated < now() - %(age)s::interval)
  AND NOT EXISTS (SELECT FROM catalogs c WHERE c.node_id = n.id)
  AND NOT EXISTS (SELECT FROM node_facts f WHERE f.node_id = n.id)
  AND NOT EXISTS (SELECT FROM node_latest_reports l WHERE l.node_id = n.id)
  AND NOT EXISTS (SELECT FROM node_inputs i WHERE i.node_id = n.id)
  AND NOT EXISTS (SELECT FROM node_expirations x WHERE x.node_id = n.id AND NOT x.expires)
  AND (SELECT true FROM node_reports r WHERE r.node_id = n.id LIMIT 1) IS NULL

-- name: forget_quarantined
-- What a writer has in its hands was seen again just now.
DELETE FROM quarantine WHERE id IN (
    SELECT id FROM quarantine WHERE last_seen < now() - %s::interval FOR UPDATE SKIP LOCKED
)

-- name: one_snapshot
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- name: set_statement_timeout
SELECT set_config('statement_timeout', %s, true)
