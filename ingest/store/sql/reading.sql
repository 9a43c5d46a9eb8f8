-- name: read_catalog
-- The header of one node's catalog, active or not.
SELECT n.id, n.certname, c.producer_timestamp, c.version, e.name, p.name, c.transaction_uuid::text,
       c.catalog_uuid::text, c.code_id, c.job_id
FROM nodes n
JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
LEFT JOIN producers p ON p.id = c.producer_id
WHERE n.certname = %s

-- name: read_catalog_resources
-- One node's resources in the order of their slots. Tags as ids: their names take most of the time when they are
-- looked up for each resource.
SELECT r.type, r.title, r.exported, resource_kind(r.kind), r.tag_ids, r.parameters::text, r.exact, p.file, p.line, p.exact
FROM catalogs c
JOIN position_sets ps ON ps.id = c.position_set_id
JOIN catalog_resources cr ON cr.node_id = c.node_id
CROSS JOIN LATERAL ROWS FROM (
    unnest(cr.resource_ids),
    unnest(ps.position_ids[cr.chunk * 256 + 1 : cr.chunk * 256 + cardinality(cr.resource_ids)])
) WITH ORDINALITY AS m (resource_id, position_id, place)
JOIN resources r ON r.id = m.resource_id
JOIN positions p ON p.id = m.position_id
WHERE c.node_id = %s
ORDER BY cr.chunk, m.place

-- name: read_tag_names
SELECT id, name FROM tags WHERE id = ANY (%s)

-- name: read_catalog_edges
-- One node's edges as slots.
SELECT es.sources, es.targets, es.relationships
FROM catalogs c
JOIN edge_sets es ON es.id = c.edge_set_id
WHERE c.node_id = %s

-- name: read_exported
-- What a collector gets. Tags must all be there, and each parameter be that value or an array with it, as in
-- Puppet's own collectors; NULL asks for nothing. Not parameters @> wanted: that finds parts of hashes.
SELECT certname, environment, type, title, tags, parameters, file, line, exact
FROM exported_resources
WHERE type = %(type)s
  AND (%(title)s::text IS NULL OR title = %(title)s)
  AND (%(tags)s::text[] IS NULL OR tags @> %(tags)s)
  AND (%(parameters)s::jsonb IS NULL OR (
      SELECT bool_and(coalesce(parameters -> wanted.name = wanted.value OR EXISTS (
          SELECT FROM jsonb_array_elements(CASE jsonb_typeof(parameters -> wanted.name)
              WHEN 'array' THEN parameters -> wanted.name END) AS element (value)
          WHERE element.value = wanted.value
      ), false))
      FROM jsonb_each(%(parameters)s::jsonb) AS wanted (name, value)
  ))
  AND (%(except_certname)s::text IS NULL OR certname <> %(except_certname)s)
ORDER BY certname COLLATE "C", title COLLATE "C"

-- name: read_who_has
SELECT certname, environment, type, title, exported, file, line
FROM node_resources
WHERE type = %(type)s AND title = %(title)s
ORDER BY certname COLLATE "C"
