-- What readers see: the words of the field, then the tables of the old storeconfigs.

-- No functions that read tables: inside a view they would need their caller's rights on the tables.
CREATE FUNCTION relationship_name(code smallint) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (ARRAY['contains', 'before', 'required-by', 'notifies', 'subscription-of'])[code + 1];

CREATE FUNCTION resource_kind(code "char") RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE code
        WHEN 'c' THEN 'compilable_type' WHEN 'd' THEN 'defined_type' WHEN 'u' THEN 'unknown'
        WHEN 'k' THEN 'class' WHEN 'n' THEN 'node'
    END;

CREATE VIEW node_catalogs AS
SELECT n.certname, c.producer_timestamp, c.version, c.transaction_uuid, c.catalog_uuid, c.code_id, c.job_id,
       e.name AS environment, p.name AS producer, c.received_at, c.slots AS resources,
       n.deactivated, n.expired
FROM nodes n
JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
LEFT JOIN producers p ON p.id = c.producer_id;

-- Every resource of every active node. = ANY, not unnest: then the planner may begin at a node (and look its ids
-- up) or at a resource (and compare it with every array, which is quicker than to take all of them apart).
CREATE VIEW node_resources AS
SELECT n.certname, e.name AS environment, r.type, r.title, r.exported,
       ARRAY(SELECT t.name FROM tags t WHERE t.id = ANY (r.tag_ids) ORDER BY t.name COLLATE "C") AS tags,
       r.parameters, p.file, p.line, resource_kind(r.kind) AS kind, r.exact, r.id AS resource_id
FROM nodes n
JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
JOIN position_sets ps ON ps.id = c.position_set_id
JOIN catalog_resources cr ON cr.node_id = n.id
JOIN resources r ON r.id = ANY (cr.resource_ids)
LEFT JOIN positions p ON p.id = ps.position_ids[cr.chunk * 256 + array_position(cr.resource_ids, r.id)]
WHERE n.deactivated IS NULL AND n.expired IS NULL;

-- What a collector may take: exported resources of active nodes.
CREATE VIEW exported_resources AS
SELECT n.certname, e.name AS environment, r.type, r.title,
       ARRAY(SELECT t.name FROM tags t WHERE t.id = ANY (r.tag_ids) ORDER BY t.name COLLATE "C") AS tags,
       r.parameters, (SELECT p.file FROM positions p WHERE p.id = place.id) AS file,
       (SELECT p.line FROM positions p WHERE p.id = place.id) AS line, r.tag_ids, r.exact
FROM catalog_exports x
CROSS JOIN LATERAL unnest(x.resource_ids) AS export (resource_id)
JOIN resources r ON r.id = export.resource_id
JOIN nodes n ON n.id = x.node_id
JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
CROSS JOIN LATERAL (
    SELECT (
        SELECT ps.position_ids[cr.chunk * 256 + array_position(cr.resource_ids, r.id)]
        FROM catalog_resources cr
        JOIN position_sets ps ON ps.id = c.position_set_id
        WHERE cr.node_id = n.id AND r.id = ANY (cr.resource_ids)
    ) AS id
    OFFSET 0  -- looked for once a row; and not at all where neither file nor line is asked for
) AS place
WHERE r.exported AND n.deactivated IS NULL AND n.expired IS NULL;

CREATE VIEW edges AS
SELECT n.certname, s.type AS source_type, s.title AS source_title, t.type AS target_type,
       t.title AS target_title, relationship_name(e.relationship) AS relationship,
       s.exact AS source_exact, t.exact AS target_exact
FROM nodes n
JOIN catalogs c ON c.node_id = n.id
JOIN edge_sets es ON es.id = c.edge_set_id
CROSS JOIN LATERAL (
    SELECT array_agg(m.resource_id ORDER BY cr.chunk, m.place) AS resource_ids
    FROM catalog_resources cr
    CROSS JOIN LATERAL unnest(cr.resource_ids) WITH ORDINALITY AS m (resource_id, place)
    WHERE cr.node_id = n.id
) AS slots
CROSS JOIN LATERAL unnest(es.sources, es.targets, es.relationships) AS e (source, target, relationship)
JOIN resources s ON s.id = slots.resource_ids[e.source + 1]
JOIN resources t ON t.id = slots.resource_ids[e.target + 1]
WHERE n.deactivated IS NULL AND n.expired IS NULL;

-- The old storeconfigs tables (ActiveRecord, Puppet 0.24 - 3.8) as views in a schema of their own, since some
-- of their names are taken here: SET search_path = storeconfigs. One old resource id is
-- node_id * 2^32 + the content's id, because there a resource belonged to one host.
CREATE SCHEMA IF NOT EXISTS storeconfigs;

CREATE VIEW storeconfigs.hosts AS
SELECT n.id, n.certname AS name, NULL::text AS ip, e.name AS environment,
       c.producer_timestamp AS last_compile, NULL::timestamptz AS last_freshcheck,
       NULL::timestamptz AS last_report, c.received_at AS updated_at, NULL::bigint AS source_file_id,
       NULL::timestamptz AS created_at
FROM nodes n
LEFT JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
WHERE n.deactivated IS NULL AND n.expired IS NULL;

CREATE VIEW storeconfigs.source_files AS
SELECT min(p.id)::bigint AS id, p.file AS filename, p.file AS path
FROM positions p
WHERE p.file IS NOT NULL
GROUP BY p.file;

CREATE VIEW storeconfigs.puppet_tags AS
SELECT t.id::bigint AS id, t.name
FROM tags t;

CREATE VIEW storeconfigs.resources AS
SELECT n.id * 4294967296 + (r.id & 4294967295) AS id, r.title, r.type AS restype, n.id AS host_id,
       (SELECT min(q.id)::bigint FROM positions q WHERE q.file = p.file) AS source_file_id,
       r.exported, p.line, c.received_at AS updated_at, NULL::timestamptz AS created_at, r.id AS content_id
FROM nodes n
JOIN catalogs c ON c.node_id = n.id
JOIN position_sets ps ON ps.id = c.position_set_id
JOIN catalog_resources cr ON cr.node_id = n.id
CROSS JOIN LATERAL ROWS FROM (
    unnest(cr.resource_ids),
    unnest(ps.position_ids[cr.chunk * 256 + 1 : cr.chunk * 256 + cardinality(cr.resource_ids)])
) AS m (resource_id, position_id)
JOIN resources r ON r.id = m.resource_id
LEFT JOIN positions p ON p.id = m.position_id
WHERE n.deactivated IS NULL AND n.expired IS NULL;

CREATE VIEW storeconfigs.resource_tags AS
SELECT r.id AS resource_id, t.tag_id::bigint AS puppet_tag_id
FROM storeconfigs.resources r
JOIN resources content ON content.id = r.content_id
CROSS JOIN LATERAL unnest(content.tag_ids) AS t (tag_id);

-- An id for a parameter's name that is the same in both views and needs no table: the first 60 bits of its MD5.
CREATE VIEW storeconfigs.param_names AS
SELECT DISTINCT ('x0' || left(md5(k.name), 15))::bit(64)::bigint AS id, k.name
FROM resources r
CROSS JOIN LATERAL jsonb_object_keys(r.parameters) AS k (name);

-- Booleans as "true" and "false", each element of an array a row, references as the strings they are.
CREATE VIEW storeconfigs.param_values AS
SELECT r.id * 64 + row_number() OVER (PARTITION BY r.id ORDER BY k.name, v.place) AS id, v.value,
       ('x0' || left(md5(k.name), 15))::bit(64)::bigint AS param_name_id, r.line, r.id AS resource_id
FROM storeconfigs.resources r
JOIN resources content ON content.id = r.content_id
CROSS JOIN LATERAL jsonb_each(content.parameters) AS k (name, given)
CROSS JOIN LATERAL jsonb_array_elements_text(
    CASE jsonb_typeof(k.given) WHEN 'array' THEN k.given ELSE jsonb_build_array(k.given) END
) WITH ORDINALITY AS v (value, place);

-- Facts are not stored yet: the tables are there, so that tools find them, and empty.
CREATE VIEW storeconfigs.fact_names AS
SELECT NULL::bigint AS id, NULL::text AS name WHERE false;

CREATE VIEW storeconfigs.fact_values AS
SELECT NULL::bigint AS id, NULL::text AS value, NULL::bigint AS fact_name_id, NULL::bigint AS host_id
WHERE false;
