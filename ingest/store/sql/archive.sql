-- name: archive_nodes
-- The next nodes by name, of every state, and what is small about each.
SELECT n.certname, n.id, n.deactivated, c.node_id IS NOT NULL, f.node_id IS NOT NULL, x.producer_timestamp, x.expires,
       i.producer_timestamp, i.catalog_uuid::text, i.types, i.names
FROM nodes n
LEFT JOIN catalogs c ON c.node_id = n.id
LEFT JOIN node_facts f ON f.node_id = n.id
LEFT JOIN node_expirations x ON x.node_id = n.id
LEFT JOIN node_inputs i ON i.node_id = n.id
WHERE n.certname > %s
ORDER BY n.certname
LIMIT %s

-- name: count_archived
-- About how many files an archive will have: for a progress bar.
SELECT (SELECT count(*) FROM catalogs) + (SELECT count(*) FROM node_facts) + (SELECT count(*) FROM node_reports)
     + (SELECT count(*) FROM node_inputs) + (SELECT count(*) FROM node_expirations)
     + (SELECT count(*) FROM nodes WHERE deactivated IS NOT NULL)

-- name: archive_reports
-- A node's reports, each as its payload without resources, and its events. As json and not jsonb: numbers stay as they are.
SELECT json_build_object(
    'certname', %(certname)s::text, 'puppet_version', h.puppet_version, 'report_format', h.report_format,
    'configuration_version', r.configuration_version,
    'start_time', to_char(r.start_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'end_time', to_char(r.end_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'producer_timestamp',
    to_char(coalesce(r.said_at, r.producer_timestamp) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'producer', h.producer, 'environment', h.environment, 'transaction_uuid', r.transaction_uuid,
    'catalog_uuid', r.catalog_uuid, 'code_id', r.code_id, 'job_id', r.job_id,
    'cached_catalog_status', h.cached_catalog_status, 'status', h.status, 'noop', h.noop, 'noop_pending', h.noop_pending,
    'corrective_change', h.corrective_change, 'type', CASE WHEN h.is_plan THEN 'plan' ELSE 'agent' END,
    'metrics', coalesce((SELECT report_values(s.names, r.metrics, r.metrics_exact)
                         FROM metric_shapes s WHERE s.id = r.shape_id), '[]'),
    'logs', (
        SELECT coalesce(json_agg(json_build_object(
            'file', c.file, 'line', c.line, 'level', c.level, 'message', coalesce(c.message, e.message),
            'source', c.source, 'tags', c.tags,
            'time', to_char((r.start_time + o.microseconds * interval '1 microsecond') AT TIME ZONE 'UTC',
                            'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) ORDER BY o.place), '[]')
        FROM unnest(r.log_ids, r.log_offsets) WITH ORDINALITY AS o (log_id, microseconds, place)
        JOIN log_contents c ON c.id = o.log_id
        LEFT JOIN event_contents e ON e.id = c.event_id)
)::text, (
    SELECT coalesce(json_agg(json_build_object(
        'resource_type', c.resource_type, 'resource_title', c.resource_title, 'file', c.file, 'line', c.line,
        'containment_path', c.containment_path, 'status', c.status,
        'timestamp', to_char((r.start_time + o.microseconds * interval '1 microsecond') AT TIME ZONE 'UTC',
                             'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'name', c.name, 'property', c.property, 'new_value', c.new_value::json, 'old_value', c.old_value::json,
        'corrective_change', c.corrective_change, 'message', c.message) ORDER BY o.place), '[]')
    FROM unnest(r.event_ids, r.event_offsets) WITH ORDINALITY AS o (event_id, microseconds, place)
    JOIN event_contents c ON c.id = o.event_id
)::text
FROM node_reports r
JOIN report_headers h ON h.id = r.header_id
WHERE r.node_id = %(node_id)s
ORDER BY r.producer_timestamp
