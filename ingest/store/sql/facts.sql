-- name: read_fact_nodes
-- What is stored of these nodes' facts, without what they share and without their own.
SELECT n.certname, n.id, n.deactivated, n.expired, f.producer_timestamp, f.content_digest, f.base_id, f.environment_id,
       f.producer_id, f.moving_since, f.still, f.places, f.moving, p.digest
FROM nodes n
LEFT JOIN node_facts f ON f.node_id = n.id
LEFT JOIN node_packages p ON p.node_id = n.id
WHERE n.certname = ANY (%s)

-- name: read_own_facts
SELECT node_id, facts, leaves FROM node_own_facts WHERE node_id = ANY (%s)

-- name: read_fact_bases
SELECT b.id, s.digest, b.leaves FROM fact_bases b JOIN fact_shapes s ON s.id = b.shape_id WHERE b.id = ANY (%s)

-- name: find_bases_of_shapes
-- One of each shape.
SELECT DISTINCT ON (s.digest) b.id, s.digest, b.leaves
FROM fact_shapes s
JOIN fact_bases b ON b.shape_id = s.id
WHERE s.digest = ANY (%s)
ORDER BY s.digest, b.id DESC

-- name: find_fact_shapes
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN fact_shapes USING (digest)

-- name: find_fact_bases
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN fact_bases USING (digest)

-- name: find_package_versions
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN package_versions USING (digest)

-- name: find_package_sets
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN package_sets USING (digest)

-- name: insert_fact_shapes
-- Lists come as texts with U+0002 before each element: an array of arrays would be one.
INSERT INTO fact_shapes (digest, names, exact_names, templates, firsts)
SELECT digest, (string_to_array(names, E'\x02'))[2:], exact_names, (string_to_array(templates, E'\x02'))[2:],
       (string_to_array(firsts, E'\x02'))[2:]::integer[]
FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::text[], %s::text[])
    AS s (digest, names, exact_names, templates, firsts)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_fact_bases
INSERT INTO fact_bases (digest, shape_id, leaves)
SELECT digest, shape_id, (string_to_array(leaves, E'\x02'))[2:]
FROM unnest(%s::bytea[], %s::integer[], %s::text[]) AS s (digest, shape_id, leaves)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_package_versions
INSERT INTO package_versions (digest, name, version, provider)
SELECT digest, name, version, provider
FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::text[]) AS s (digest, name, version, provider)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_package_sets
INSERT INTO package_sets (digest, package_ids)
SELECT digest, (string_to_array(package_ids, E'\x02'))[2:]::integer[]
FROM unnest(%s::bytea[], %s::text[]) AS s (digest, package_ids)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: update_node_facts
UPDATE node_facts f
SET base_id = s.base_id, environment_id = s.environment_id, producer_id = s.producer_id, moving_since = s.moving_since,
    still = (string_to_array(s.still, E'\x02'))[2:]::smallint[], places = (string_to_array(s.places, E'\x02'))[2:]::smallint[],
    received_at = s.received_at, producer_timestamp = s.producer_timestamp, content_digest = s.content_digest,
    moving = s.moving
FROM unnest(%s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::timestamptz[], %s::text[], %s::text[],
            %s::timestamptz[], %s::timestamptz[], %s::bytea[], %s::text[])
    AS s (node_id, base_id, environment_id, producer_id, moving_since, still, places, received_at, producer_timestamp,
          content_digest, moving)
WHERE f.node_id = s.node_id

-- name: insert_node_facts
INSERT INTO node_facts (node_id, base_id, environment_id, producer_id, moving_since, still, places, received_at,
    producer_timestamp, content_digest, moving)
SELECT node_id, base_id, environment_id, producer_id, moving_since, (string_to_array(still, E'\x02'))[2:]::smallint[],
    (string_to_array(places, E'\x02'))[2:]::smallint[], received_at, producer_timestamp, content_digest, moving
FROM unnest(%s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::timestamptz[], %s::text[], %s::text[],
            %s::timestamptz[], %s::timestamptz[], %s::bytea[], %s::text[])
    AS s (node_id, base_id, environment_id, producer_id, moving_since, still, places, received_at, producer_timestamp,
          content_digest, moving)
ORDER BY node_id

-- name: touch_node_facts
-- Nothing but the header differs.
UPDATE node_facts f
SET environment_id = s.environment_id, producer_id = s.producer_id, received_at = s.received_at,
    producer_timestamp = s.producer_timestamp
FROM unnest(%s::integer[], %s::integer[], %s::integer[], %s::timestamptz[], %s::timestamptz[])
    AS s (node_id, environment_id, producer_id, received_at, producer_timestamp)
WHERE f.node_id = s.node_id

-- name: update_own_facts
-- Not ON CONFLICT DO UPDATE, which locks each row first: one more record and one more page image.
UPDATE node_own_facts o
SET facts = (string_to_array(s.facts, E'\x02'))[2:]::integer[], leaves = (string_to_array(s.leaves, E'\x02'))[2:]
FROM unnest(%s::integer[], %s::text[], %s::text[]) AS s (node_id, facts, leaves)
WHERE o.node_id = s.node_id
RETURNING o.node_id

-- name: insert_own_facts
INSERT INTO node_own_facts (node_id, facts, leaves)
SELECT node_id, (string_to_array(facts, E'\x02'))[2:]::integer[], (string_to_array(leaves, E'\x02'))[2:]
FROM unnest(%s::integer[], %s::text[], %s::text[]) AS s (node_id, facts, leaves)
ORDER BY node_id

-- name: read_node_packages
-- The set that each node has, and those of other nodes are like.
SELECT p.node_id, p.set_id, s.package_ids FROM node_packages p JOIN package_sets s ON s.id = p.set_id
WHERE p.node_id = ANY (%s)

-- name: read_package_set
SELECT package_ids FROM package_sets WHERE id = %s

-- name: put_node_packages
INSERT INTO node_packages (node_id, set_id, digest, added, removed)
SELECT node_id, set_id, digest, (string_to_array(added, E'\x02'))[2:]::integer[],
    (string_to_array(removed, E'\x02'))[2:]::integer[]
FROM unnest(%s::integer[], %s::integer[], %s::bytea[], %s::text[], %s::text[]) AS s (node_id, set_id, digest, added, removed)
ORDER BY node_id
ON CONFLICT (node_id) DO UPDATE
SET set_id = excluded.set_id, digest = excluded.digest, added = excluded.added, removed = excluded.removed

-- name: delete_node_packages
DELETE FROM node_packages WHERE node_id = ANY (%s)

-- name: read_factset
-- The header of one node's facts and all that its values are made of.
SELECT n.certname, f.producer_timestamp, e.name, p.name, s.names, s.exact_names, s.templates, b.leaves, o.facts, o.leaves,
       f.places, f.moving, n.id
FROM nodes n
JOIN node_facts f ON f.node_id = n.id
JOIN fact_bases b ON b.id = f.base_id
JOIN fact_shapes s ON s.id = b.shape_id
LEFT JOIN node_own_facts o ON o.node_id = n.id
LEFT JOIN environments e ON e.id = f.environment_id
LEFT JOIN producers p ON p.id = f.producer_id
WHERE n.certname = %s

-- name: read_packages_of_node
SELECT package_name, version, provider FROM node_package_versions WHERE node_id = %s
ORDER BY package_name COLLATE "C", version COLLATE "C", provider COLLATE "C"

-- name: read_facts_named
-- Of active nodes; NULL asks for any value.
SELECT certname, environment, name, value FROM facts
WHERE name = %(name)s AND (%(value)s::jsonb IS NULL OR value = %(value)s::jsonb)
ORDER BY certname COLLATE "C"
