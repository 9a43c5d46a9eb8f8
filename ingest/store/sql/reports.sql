-- name: create_stage_event_contents
CREATE TEMPORARY TABLE IF NOT EXISTS stage_event_contents (
    digest bytea, status text, resource_type text, resource_title text, property text, name text, message text,
    new_value text, old_value text, file text, line bigint, containment_path text[], containing_class text,
    corrective_change boolean
) ON COMMIT DELETE ROWS

-- name: create_stage_log_contents
CREATE TEMPORARY TABLE IF NOT EXISTS stage_log_contents (
    digest bytea, level text, message text, event_id integer, source text, tags text[], file text, line bigint
) ON COMMIT DELETE ROWS

-- name: copy_event_contents
COPY stage_event_contents FROM STDIN (FORMAT BINARY)

-- name: copy_log_contents
COPY stage_log_contents FROM STDIN (FORMAT BINARY)

-- name: find_metric_shapes
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN metric_shapes USING (digest)

-- name: find_report_headers
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN report_headers USING (digest)

-- name: find_event_contents
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN event_contents USING (digest)

-- name: find_log_contents
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN log_contents USING (digest)

-- name: insert_metric_shapes
INSERT INTO metric_shapes (digest, names)
SELECT digest, names FROM unnest(%(c0)s::bytea[], %(c1)s::jsonb[]) AS new (digest, names) ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_report_headers
INSERT INTO report_headers (digest, report_format, noop, noop_pending, corrective_change, is_plan, status, environment,
    producer, puppet_version, cached_catalog_status)
SELECT digest, report_format, noop, noop_pending, corrective_change, is_plan, status, environment, producer,
    puppet_version, cached_catalog_status
FROM unnest(
    %(c0)s::bytea[], %(c1)s::integer[], %(c2)s::boolean[], %(c3)s::boolean[], %(c4)s::boolean[], %(c5)s::boolean[],
    %(c6)s::text[], %(c7)s::text[], %(c8)s::text[], %(c9)s::text[], %(c10)s::text[]
) AS new (digest, report_format, noop, noop_pending, corrective_change, is_plan, status, environment, producer,
    puppet_version, cached_catalog_status)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_event_contents
INSERT INTO event_contents (digest, status, resource_type, resource_title, property, name, message, new_value, old_value,
    file, line, containment_path, containing_class, corrective_change)
SELECT digest, status, resource_type, resource_title, property, name, message, new_value, old_value, file, line,
    (%(c11)s::text[])[first:last], containing_class, corrective_change
FROM unnest(
    %(c0)s::bytea[], %(c1)s::text[], %(c2)s::text[], %(c3)s::text[], %(c4)s::text[], %(c5)s::text[], %(c6)s::text[],
    %(c7)s::text[], %(c8)s::text[], %(c9)s::text[], %(c10)s::bigint[], %(c11_first)s::integer[], %(c11_last)s::integer[],
    %(c12)s::text[], %(c13)s::boolean[]
) AS new (digest, status, resource_type, resource_title, property, name, message, new_value, old_value, file, line, first,
    last, containing_class, corrective_change)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_staged_event_contents
INSERT INTO event_contents (digest, status, resource_type, resource_title, property, name, message, new_value, old_value,
    file, line, containment_path, containing_class, corrective_change)
SELECT digest, status, resource_type, resource_title, property, name, message, new_value, old_value, file, line,
    containment_path, containing_class, corrective_change
FROM stage_event_contents ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_log_contents
INSERT INTO log_contents (digest, level, message, event_id, source, tags, file, line)
SELECT digest, level, message, event_id, source, (%(c5)s::text[])[first:last], file, line
FROM unnest(
    %(c0)s::bytea[], %(c1)s::text[], %(c2)s::text[], %(c3)s::integer[], %(c4)s::text[], %(c5_first)s::integer[],
    %(c5_last)s::integer[], %(c6)s::text[], %(c7)s::bigint[]
) AS new (digest, level, message, event_id, source, first, last, file, line)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_staged_log_contents
INSERT INTO log_contents (digest, level, message, event_id, source, tags, file, line)
SELECT digest, level, message, event_id, source, tags, file, line FROM stage_log_contents ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: use_metric_shapes
-- At most once a day each, in the order of ids: writers that use the same wait for each other, never in a circle.
UPDATE metric_shapes t SET last_used = current_date
FROM (SELECT id FROM metric_shapes WHERE id = ANY (%s) AND last_used < current_date ORDER BY id FOR UPDATE) AS old
WHERE t.id = old.id

-- name: use_report_headers
UPDATE report_headers t SET last_used = current_date
FROM (SELECT id FROM report_headers WHERE id = ANY (%s) AND last_used < current_date ORDER BY id FOR UPDATE) AS old
WHERE t.id = old.id

-- name: use_event_contents
UPDATE event_contents t SET last_used = current_date
FROM (SELECT id FROM event_contents WHERE id = ANY (%s) AND last_used < current_date ORDER BY id FOR UPDATE) AS old
WHERE t.id = old.id

-- name: use_log_contents
UPDATE log_contents t SET last_used = current_date
FROM (SELECT id FROM log_contents WHERE id = ANY (%s) AND last_used < current_date ORDER BY id FOR UPDATE) AS old
WHERE t.id = old.id

-- name: ensure_report_days
SELECT ensure_report_days(%s)

-- name: stored_reports
-- Of these hashes: a report whose time was not believed lies on another day than the one that it said.
SELECT r.hash FROM node_reports r
WHERE r.hash = ANY (%s) AND r.producer_timestamp BETWEEN %s::timestamptz AND %s::timestamptz

-- name: copy_node_reports
COPY node_reports (
    producer_timestamp, said_at, received_at, start_time, end_time, transaction_uuid, catalog_uuid, node_id, header_id,
    shape_id, hash, configuration_version, code_id, job_id, event_ids, event_offsets, log_ids, log_offsets, metrics,
    metrics_exact
) FROM STDIN (FORMAT BINARY)

-- name: put_latest_reports
-- What was stored from too far in the future is newer than nothing.
INSERT INTO node_latest_reports AS l (node_id, environment, successes, failures, noops, skips, corrections, noop, noop_pending,
    corrective_change, producer_timestamp, start_time, end_time, received_at, hash, status, job_id,
    cached_catalog_status)
SELECT * FROM unnest(
    %s::integer[], %s::text[], %s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::integer[],
    %s::boolean[], %s::boolean[], %s::boolean[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[],
    %s::timestamptz[], %s::bytea[], %s::text[], %s::text[], %s::text[]
)
ON CONFLICT (node_id) DO UPDATE
SET environment = excluded.environment, successes = excluded.successes, failures = excluded.failures,
    noops = excluded.noops, skips = excluded.skips, corrections = excluded.corrections, noop = excluded.noop,
    noop_pending = excluded.noop_pending, corrective_change = excluded.corrective_change,
    producer_timestamp = excluded.producer_timestamp, start_time = excluded.start_time,
    end_time = excluded.end_time, received_at = excluded.received_at, hash = excluded.hash,
    status = excluded.status, job_id = excluded.job_id, cached_catalog_status = excluded.cached_catalog_status
WHERE (excluded.producer_timestamp, excluded.hash) >= (l.producer_timestamp, l.hash)
   OR l.producer_timestamp > excluded.received_at + %s::interval

-- name: drop_report_day
SELECT drop_report_day((now() AT TIME ZONE 'UTC' - %s::interval)::date)

-- name: empty_report_day
SELECT empty_report_day((now() AT TIME ZONE 'UTC' - %s::interval)::date)

-- name: forget_report_events
-- Of days that are over, as many reports at a time.
SELECT forget_report_events((now() AT TIME ZONE 'UTC' - %s::interval)::date, %s)

-- name: unused_report_contents
-- Not used for longer than any report is kept, and two days more: days end at different times in different time zones.
SELECT kind, array_agg(id) FROM (
    SELECT 'metric_shapes' AS kind, id FROM metric_shapes WHERE last_used < current_date - %(ttl)s::interval - interval '2 days'
    UNION ALL
    SELECT 'report_headers', id FROM report_headers WHERE last_used < current_date - %(ttl)s::interval - interval '2 days'
    UNION ALL
    SELECT 'event_contents', id FROM event_contents WHERE last_used < current_date - %(ttl)s::interval - interval '2 days'
    UNION ALL
    SELECT 'log_contents', id FROM log_contents WHERE last_used < current_date - %(ttl)s::interval - interval '2 days'
) AS unused
GROUP BY kind

-- name: delete_metric_shapes
DELETE FROM metric_shapes WHERE id = ANY (%(ids)s) AND last_used < current_date - %(ttl)s::interval - interval '2 days'

-- name: delete_report_headers
DELETE FROM report_headers WHERE id = ANY (%(ids)s) AND last_used < current_date - %(ttl)s::interval - interval '2 days'

-- name: delete_event_contents
DELETE FROM event_contents WHERE id = ANY (%(ids)s) AND last_used < current_date - %(ttl)s::interval - interval '2 days'

-- name: delete_log_contents
DELETE FROM log_contents WHERE id = ANY (%(ids)s) AND last_used < current_date - %(ttl)s::interval - interval '2 days'

-- name: reactivate_reporting_nodes
-- A report newer than the deactivation, or any after an expiry, as a catalog.
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

-- name: read_reporting_nodes
SELECT n.certname, n.id, n.deactivated IS NOT NULL OR n.expired IS NOT NULL FROM nodes n WHERE n.certname = ANY (%s)

-- name: list_reports
SELECT r.certname, r.hash, r.status, r.noop, r.corrective_change, r.environment, r.type, r.start_time, r.end_time,
       r.producer_timestamp, r.configuration_version, r.puppet_version, r.cached_catalog_status
FROM reports r
WHERE (%(certname)s::text IS NULL OR r.certname = %(certname)s::text)
  AND (%(status)s::text IS NULL OR r.status = %(status)s::text)
  AND (%(since)s::interval IS NULL OR r.ordered_at >= now() - %(since)s::interval)
ORDER BY r.ordered_at DESC, r.certname

-- name: has_node
SELECT EXISTS (SELECT FROM nodes WHERE certname = %s)

-- name: read_report
-- Found by the index of hashes, which the views show as texts; and then by its node.
SELECT to_jsonb(r) - 'ordered_at' - 'node_id' || jsonb_build_object(
    'resource_events', (SELECT coalesce(jsonb_agg(to_jsonb(e) - 'report' - 'certname' - 'place' ORDER BY e.place), '[]')
                        FROM resource_events e WHERE e.report = r.hash AND e.certname = r.certname),
    'logs', (SELECT coalesce(jsonb_agg(to_jsonb(l) - 'report' - 'certname' - 'place' ORDER BY l.place), '[]')
             FROM report_logs l WHERE l.report = r.hash AND l.certname = r.certname),
    'metrics', (SELECT coalesce(jsonb_agg(to_jsonb(m) - 'report' - 'certname' - 'place' ORDER BY m.place), '[]')
                FROM report_metrics m WHERE m.report = r.hash AND m.certname = r.certname))
FROM node_reports found
JOIN reports r ON r.node_id = found.node_id AND r.ordered_at = found.producer_timestamp
              AND r.hash = encode(found.hash, 'hex')
WHERE found.hash = CASE WHEN %(hash)s::text ~ '^([0-9a-f]{2})+$' THEN decode(%(hash)s::text, 'hex') END
LIMIT 1
