-- name: put_rhythms
-- Of the few nodes whose last gap was a new one.
INSERT INTO node_rhythms AS r (node_id, usual_s, odd_s, odd_for_s)
SELECT * FROM unnest(%s::integer[], %s::integer[], %s::integer[], %s::integer[])
ON CONFLICT (node_id) DO UPDATE SET usual_s = excluded.usual_s, odd_s = excluded.odd_s, odd_for_s = excluded.odd_for_s

-- name: hear_of_nodes
-- Their catalogs are older than what is stored, and stay unwritten.
INSERT INTO node_rhythms AS r (node_id, heard_at)
SELECT * FROM unnest(%s::integer[], %s::timestamptz[])
ON CONFLICT (node_id) DO UPDATE SET heard_at = excluded.heard_at
WHERE excluded.heard_at > coalesce(r.heard_at, '-infinity')

-- name: list_nodes
-- Those that a person looks for: the longest silent first.
SELECT certname, deactivated, expired, catalog_environment, heard_at, silent_s, usual_s, is_learnt, overdue_after_s,
       is_overdue, catalog_timestamp, catalog_stored_at, catalog_lag_s, facts_timestamp, report_timestamp, report_status,
       report_noop, report_hash
FROM node_freshness
WHERE (%(certname)s::text IS NULL OR certname = %(certname)s)
  AND (NOT %(overdue)s OR is_overdue)
  AND (NOT %(failed)s OR report_status = 'failed')
  AND (%(stale)s::interval IS NULL OR catalog_stored_at IS NULL OR catalog_stored_at < now() - %(stale)s::interval)
  AND (%(certname)s::text IS NOT NULL OR (deactivated IS NOT NULL OR expired IS NOT NULL) = %(inactive)s)
ORDER BY silent_s DESC, certname COLLATE "C"

-- name: fleet_freshness
-- The fleet in one row of JSON. The buckets of ``silence`` count active nodes by silence over interval, those of ``lag``
-- catalogs by what lies between the producer's time and being stored; each below its limit.
WITH seen AS MATERIALIZED (
    SELECT *, deactivated IS NULL AND expired IS NULL AS is_active FROM node_freshness
), active AS (
    SELECT *, silent_s / nullif(usual_s, 0) AS part FROM seen WHERE is_active
), silence AS (
    SELECT width_bucket(part, %(silence_limits)s::double precision[]) AS bucket, count(*) AS nodes FROM active GROUP BY 1
), lag AS (
    SELECT width_bucket(catalog_lag_s, %(lag_limits)s::double precision[]) AS bucket, count(*) AS nodes
    FROM active WHERE catalog_lag_s IS NOT NULL GROUP BY 1
)
SELECT jsonb_build_object(
    'nodes', (SELECT count(*) FROM active),
    'deactivated', (SELECT count(*) FROM seen WHERE deactivated IS NOT NULL),
    'expired', (SELECT count(*) FROM seen WHERE expired IS NOT NULL AND deactivated IS NULL),
    'overdue', (SELECT count(*) FROM active WHERE is_overdue),
    'unlearnt', (SELECT count(*) FROM active WHERE NOT is_learnt),
    'no_catalog', (SELECT count(*) FROM active WHERE catalog_stored_at IS NULL),
    'usual_s', (SELECT usual_s FROM fleet_rhythm),
    'statuses', (SELECT coalesce(jsonb_object_agg(status, nodes), '{}')
                 FROM (SELECT coalesce(report_status, 'no report') AS status, count(*) AS nodes FROM active GROUP BY 1) AS s),
    'silence', (SELECT coalesce(jsonb_object_agg(bucket, nodes), '{}') FROM silence),
    'silence_sum', (SELECT coalesce(sum(part), 0) FROM active),
    'lag', (SELECT coalesce(jsonb_object_agg(bucket, nodes), '{}') FROM lag),
    'lag_sum', (SELECT coalesce(sum(catalog_lag_s), 0) FROM active),
    'lag_p50_s', (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY catalog_lag_s) FROM active),
    'lag_p99_s', (SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY catalog_lag_s) FROM active),
    'pace_per_s', (SELECT coalesce(sum(1.0 / nullif(usual_s, 0)), 0) FROM active),
    'overdue_nodes', (SELECT coalesce(jsonb_agg(jsonb_build_object(
            'certname', certname, 'silent_s', silent_s, 'usual_s', usual_s) ORDER BY silent_s DESC), '[]')
        FROM (SELECT * FROM active WHERE is_overdue ORDER BY silent_s DESC LIMIT 20) AS o),
    'database_bytes', pg_database_size(current_database())
)

-- name: node_details
SELECT jsonb_build_object(
    'catalog', (SELECT jsonb_build_object('resources', c.slots, 'version', c.version, 'producer', p.name, 'code_id', c.code_id,
                    'transaction_uuid', c.transaction_uuid,
                    'exported', coalesce((SELECT cardinality(resource_ids) FROM catalog_exports x WHERE x.node_id = n.id), 0))
                FROM catalogs c LEFT JOIN producers p ON p.id = c.producer_id WHERE c.node_id = n.id),
    'last_report', (SELECT jsonb_build_object('status', l.status, 'successes', l.successes, 'failures', l.failures,
                    'skips', l.skips, 'noops', l.noops, 'start_time', l.start_time, 'end_time', l.end_time)
                FROM node_latest_reports l WHERE l.node_id = n.id),
    'quarantine', (SELECT coalesce(jsonb_agg(jsonb_build_object('number', q.id, 'reason', q.reason, 'messages', q.attempts,
                    'last_seen', q.last_seen) ORDER BY q.last_seen DESC), '[]')
                FROM quarantine q WHERE q.certname = n.certname)
)
FROM nodes n WHERE n.certname = %(certname)s

-- name: quarantine_summary
-- By reason, the newest first: rows, messages, and one node as an example.
SELECT reason, count(*), coalesce(sum(attempts), 0), max(last_seen), (array_agg(certname ORDER BY last_seen DESC))[1]
FROM quarantine GROUP BY reason ORDER BY max(last_seen) DESC LIMIT 10

-- name: find_node
SELECT id, certname FROM nodes WHERE certname = %s

-- name: deactivate_node
-- By a person, now: a newer catalog brings it back.
UPDATE nodes SET deactivated = now() WHERE id = ANY (%s)

-- name: reactivate_node
UPDATE nodes SET deactivated = NULL, expired = NULL WHERE id = ANY (%s)

-- name: forget_node
-- With all that is stored of it; its reports go with their days.
WITH gone AS (
    DELETE FROM nodes WHERE id = ANY (%(ids)s) RETURNING id
), chunks AS (
    DELETE FROM catalog_resources cr USING gone WHERE cr.node_id = gone.id
), exports AS (
    DELETE FROM catalog_exports x USING gone WHERE x.node_id = gone.id
)
SELECT count(*) FROM gone
