-- name: find_tags
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN tags USING (digest)

-- name: find_positions
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN positions USING (digest)

-- name: find_resources
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN resources USING (digest)

-- name: find_edge_sets
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN edge_sets USING (digest)

-- name: find_position_sets
SELECT digest, id FROM unnest(%s::bytea[]) AS asked (digest) JOIN position_sets USING (digest)

-- name: insert_tags
-- No conflict target: an id that the cycling sequence met again is passed over like a digest that is there.
INSERT INTO tags (digest, name)
SELECT digest, name FROM unnest(%(c0)s::bytea[], %(c1)s::text[]) AS new (digest, name) ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_positions
INSERT INTO positions (digest, file, line, exact)
SELECT digest, file, line, exact
FROM unnest(%(c0)s::bytea[], %(c1)s::text[], %(c2)s::bigint[], %(c3)s::bytea[]) AS new (digest, file, line, exact)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_resources
INSERT INTO resources (digest, exported, type, title, kind, tag_ids, parameters, exact)
SELECT digest, exported, type, title, kind, (%(c5)s::integer[])[first:last], parameters, exact
FROM unnest(
    %(c0)s::bytea[], %(c1)s::boolean[], %(c2)s::text[], %(c3)s::text[], %(c4)s::"char"[], %(c5_first)s::integer[],
    %(c5_last)s::integer[], %(c6)s::jsonb[], %(c7)s::bytea[]
) AS new (digest, exported, type, title, kind, first, last, parameters, exact)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_staged_resources
INSERT INTO resources (digest, exported, type, title, kind, tag_ids, parameters, exact)
SELECT digest, exported, type, title, kind, tag_ids, parameters, exact FROM stage_resources ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_edge_sets
-- The three arrays of one set have one length.
INSERT INTO edge_sets (digest, sources, targets, relationships)
SELECT digest, (%(c1)s::integer[])[first:last], (%(c2)s::integer[])[first:last], (%(c3)s::smallint[])[first:last]
FROM unnest(%(c0)s::bytea[], %(c1_first)s::integer[], %(c1_last)s::integer[]) AS new (digest, first, last)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_staged_edge_sets
INSERT INTO edge_sets (digest, sources, targets, relationships)
SELECT digest, sources, targets, relationships FROM stage_edge_sets ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_position_sets
INSERT INTO position_sets (digest, position_ids)
SELECT digest, (%(c1)s::integer[])[first:last]
FROM unnest(%(c0)s::bytea[], %(c1_first)s::integer[], %(c1_last)s::integer[]) AS new (digest, first, last)
ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_staged_position_sets
INSERT INTO position_sets (digest, position_ids)
SELECT digest, position_ids FROM stage_position_sets ORDER BY digest
ON CONFLICT DO NOTHING RETURNING digest, id

-- name: insert_environments
INSERT INTO environments (name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING

-- name: find_environments
SELECT name, id FROM environments WHERE name = ANY (%s)

-- name: insert_producers
INSERT INTO producers (name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING

-- name: find_producers
SELECT name, id FROM producers WHERE name = ANY (%s)
