-- Where the entities of PuppetDB's queries come from. The compiler (store/query) takes what stands behind SELECT, and adds
-- the columns and conditions of a query. Joins that only serve columns are LEFT JOINs by a key, which the planner leaves
-- out where nobody asks for the columns.

-- name: from_nodes
SELECT FROM nodes n
LEFT JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
LEFT JOIN node_facts f ON f.node_id = n.id
LEFT JOIN environments fe ON fe.id = f.environment_id
LEFT JOIN node_latest_reports l ON l.node_id = n.id

-- name: from_nodes_with_expiration
SELECT FROM nodes n
LEFT JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
LEFT JOIN node_facts f ON f.node_id = n.id
LEFT JOIN environments fe ON fe.id = f.environment_id
LEFT JOIN node_latest_reports l ON l.node_id = n.id
LEFT JOIN node_expirations x ON x.node_id = n.id

-- name: from_catalogs
SELECT FROM catalogs c
JOIN nodes n ON n.id = c.node_id
LEFT JOIN environments e ON e.id = c.environment_id
LEFT JOIN producers pr ON pr.id = c.producer_id

-- name: from_environments
SELECT FROM environments e

-- name: from_producers
SELECT FROM producers pr

-- name: from_resources
-- From nodes to their resources: where a node is named, or nothing that narrows down the resources. Each of them is there; by
-- LEFT JOIN, whoever only counts does not look for them.
SELECT FROM nodes n
JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
LEFT JOIN position_sets ps ON ps.id = c.position_set_id
JOIN catalog_resources cr ON cr.node_id = n.id
CROSS JOIN LATERAL (SELECT ps.position_ids[cr.chunk * 256 + 1 : cr.chunk * 256 + 256] AS ids OFFSET 0) AS slots
CROSS JOIN LATERAL unnest(cr.resource_ids) WITH ORDINALITY AS m (resource_id, place)
LEFT JOIN resources r ON r.id = m.resource_id
LEFT JOIN positions p ON p.id = slots.ids[m.place]
CROSS JOIN (SELECT NULL::text AS tags, NULL::text AS parameters) AS texts

-- name: from_resources_counted
-- Where they are only counted, by node or environment: an array says how many it has.
SELECT FROM nodes n
JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
JOIN catalog_resources cr ON cr.node_id = n.id

-- name: from_resources_by_content
-- From resources to their nodes, without an index that catalogs would have to keep. Few resources are looked for in every
-- node's arrays, 32 ms for each of them at 3000 nodes of 1000 resources; from 30 on it is quicker to take all arrays apart
-- once (1 s). Of the two halves one is not carried out at all. Nodes are joined to the arrays, and not to what comes out of them:
-- nobody can estimate how much that is.
SELECT FROM (
    WITH wanted AS MATERIALIZED (
        SELECT r.id FROM resources r WHERE true /* content */
    ), held AS NOT MATERIALIZED (
        SELECT cr.node_id, cr.chunk, cr.resource_ids, n.certname, n.deactivated, n.expired, c.environment_id, c.position_set_id
        FROM catalog_resources cr
        JOIN nodes n ON n.id = cr.node_id
        JOIN catalogs c ON c.node_id = cr.node_id
        OFFSET 0
    )
    SELECT h.node_id, h.chunk, h.certname, h.deactivated, h.expired, h.environment_id, h.position_set_id,
           array_position(h.resource_ids, w.id) AS place, w.id AS resource_id
    FROM wanted w
    JOIN held h ON w.id = ANY (h.resource_ids)
    WHERE (SELECT count(*) <= 30 FROM wanted)
    UNION ALL
    SELECT h.node_id, h.chunk, h.certname, h.deactivated, h.expired, h.environment_id, h.position_set_id, u.place, u.resource_id
    FROM held h
    CROSS JOIN LATERAL unnest(h.resource_ids) WITH ORDINALITY AS u (resource_id, place)
    JOIN wanted w ON w.id = u.resource_id
    WHERE (SELECT count(*) > 30 FROM wanted)
) AS m
JOIN resources r ON r.id = m.resource_id
CROSS JOIN LATERAL (SELECT m.node_id AS id, m.certname, m.deactivated, m.expired) AS n
CROSS JOIN LATERAL (SELECT m.environment_id, m.position_set_id) AS c
LEFT JOIN environments e ON e.id = c.environment_id
LEFT JOIN position_sets ps ON ps.id = c.position_set_id
LEFT JOIN positions p ON p.id = ps.position_ids[m.chunk * 256 + m.place]
CROSS JOIN (SELECT NULL::text AS tags, NULL::text AS parameters) AS texts

-- name: from_resources_exported
-- What collectors ask for. Which resources those are is known first: the planner cannot tell how many of the exports they are. The
-- exports are taken apart in the list of columns, where it costs a tenth of what it costs behind FROM.
SELECT FROM (
    WITH wanted AS MATERIALIZED (
        SELECT r.id, r.digest, r.type, r.title, r.exported, r.tag_ids, r.parameters
        FROM resources r
        WHERE r.exported AND true /* content */
    )
    SELECT m.node_id, w.*
    FROM (SELECT x.node_id, unnest(x.resource_ids) AS resource_id FROM catalog_exports x OFFSET 0) AS m
    JOIN wanted w ON w.id = m.resource_id
) AS r
JOIN nodes n ON n.id = r.node_id
JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id

-- name: join_position
-- File and line of an exported resource r, in a row's place alone.
SELECT FROM nodes n JOIN catalogs c ON c.node_id = n.id JOIN resources r ON true
LEFT JOIN LATERAL (
    SELECT p.file, p.line
    FROM positions p
    WHERE p.id = (
        SELECT ps.position_ids[cr.chunk * 256 + array_position(cr.resource_ids, r.id)]
        FROM catalog_resources cr
        JOIN position_sets ps ON ps.id = c.position_set_id
        WHERE cr.node_id = n.id AND r.id = ANY (cr.resource_ids)
    )
    OFFSET 0
) AS p ON true

-- name: join_exported_text
-- Its tags and parameters as housekeeping has made them; row by row, as nobody can tell the planner how few the rows are.
SELECT FROM resources r
LEFT JOIN LATERAL (
    SELECT x.tags, x.parameters FROM exported_texts x WHERE x.digest = r.digest OFFSET 0
) AS texts ON true

-- name: from_edges
SELECT FROM nodes n
JOIN catalogs c ON c.node_id = n.id
JOIN edge_sets es ON es.id = c.edge_set_id
CROSS JOIN LATERAL (
    SELECT array_agg(m.resource_id ORDER BY cr.chunk, m.place) AS resource_ids
    FROM catalog_resources cr
    CROSS JOIN LATERAL unnest(cr.resource_ids) WITH ORDINALITY AS m (resource_id, place)
    WHERE cr.node_id = n.id
) AS slots
CROSS JOIN LATERAL unnest(es.sources, es.targets, es.relationships) AS d (source, target, relationship)
JOIN resources s ON s.id = slots.resource_ids[d.source + 1]
JOIN resources t ON t.id = slots.resource_ids[d.target + 1]

-- name: catalog_resources_json
-- A catalog's resources as the text of a JSON array. The compiler puts the columns of the row that they stand in where the
-- parameters are.
SELECT '[' || coalesce(string_agg(
    '{"resource":"' || encode(r.digest, 'hex') || '","type":' || to_json(r.type) || ',"title":' || to_json(r.title)
    || ',"exported":' || r.exported || ',"tags":'
    || to_json(ARRAY(SELECT t.name FROM tags t WHERE t.id = ANY (r.tag_ids) ORDER BY t.name COLLATE "C"))
    || ',"file":' || coalesce(to_json(p.file)::text, 'null') || ',"line":' || coalesce(p.line::text, 'null')
    || ',"parameters":' || r.parameters || '}', ','), '') || ']'
FROM catalog_resources cr
LEFT JOIN position_sets ps ON ps.id = %(position_set_id)s
CROSS JOIN LATERAL (SELECT ps.position_ids[cr.chunk * 256 + 1 : cr.chunk * 256 + 256] AS ids OFFSET 0) AS slots
CROSS JOIN LATERAL unnest(cr.resource_ids) WITH ORDINALITY AS m (resource_id, place)
JOIN resources r ON r.id = m.resource_id
LEFT JOIN positions p ON p.id = slots.ids[m.place]
WHERE cr.node_id = %(node_id)s

-- name: catalog_edges_json
SELECT '[' || coalesce(string_agg(
    '{"source_type":' || to_json(s.type) || ',"source_title":' || to_json(s.title) || ',"target_type":' || to_json(t.type)
    || ',"target_title":' || to_json(t.title) || ',"relationship":' || to_json(relationship_name(d.relationship)) || '}', ','), '') || ']'
FROM edge_sets es
CROSS JOIN LATERAL (
    SELECT array_agg(m.resource_id ORDER BY cr.chunk, m.place) AS resource_ids
    FROM catalog_resources cr
    CROSS JOIN LATERAL unnest(cr.resource_ids) WITH ORDINALITY AS m (resource_id, place)
    WHERE cr.node_id = %(node_id)s
) AS slots
CROSS JOIN LATERAL unnest(es.sources, es.targets, es.relationships) AS d (source, target, relationship)
JOIN resources s ON s.id = slots.resource_ids[d.source + 1]
JOIN resources t ON t.id = slots.resource_ids[d.target + 1]
WHERE es.id = %(edge_set_id)s

-- name: from_facts
-- From nodes to their facts: where a query says which nodes. What stands before /* ... */ is replaced by the statement of that name.
SELECT FROM nodes n
JOIN node_facts f ON f.node_id = n.id
JOIN fact_bases b ON b.id = f.base_id
JOIN fact_shapes s ON s.id = b.shape_id
CROSS JOIN LATERAL unnest(s.names, s.templates, s.firsts, s.firsts[2:], b.leaves)
    WITH ORDINALITY AS v (name, template, first_place, next_place, leaves, number)
CROSS JOIN LATERAL (SELECT NULL::text AS json /* fact_of_base */) AS shared
LEFT JOIN node_own_facts o ON o.node_id = n.id
LEFT JOIN environments e ON e.id = f.environment_id
CROSS JOIN LATERAL (
    SELECT to_json(n.certname)::text AS certname, to_json(e.name)::text AS environment, to_json(v.name)::text AS name
) AS texts

-- name: from_facts_by_base
-- From what nodes share to the nodes: few bases are taken apart, and only the facts that are asked for, instead of each node's. What is
-- shown of a node, of a name, is made JSON once, and not in each row; by LEFT JOIN of a group, so not at all where nobody asks for it.
SELECT FROM (
    SELECT b.id AS base_id, v.name, v.template, v.first_place, v.next_place, v.leaves, v.number, shared.json,
           to_json(v.name)::text AS name_text
    FROM fact_bases b
    JOIN fact_shapes s ON s.id = b.shape_id
    CROSS JOIN LATERAL unnest(s.names, s.templates, s.firsts, s.firsts[2:], b.leaves)
        WITH ORDINALITY AS v (name, template, first_place, next_place, leaves, number)
    CROSS JOIN LATERAL (SELECT NULL::text AS json /* fact_of_base */) AS shared
    WHERE true /* content */
    OFFSET 0
) AS v
JOIN node_facts f ON f.base_id = v.base_id
JOIN nodes n ON n.id = f.node_id
CROSS JOIN LATERAL (SELECT v.json) AS shared
LEFT JOIN node_own_facts o ON o.node_id = n.id
LEFT JOIN environments e ON e.id = f.environment_id
LEFT JOIN (SELECT id, to_json(certname)::text AS certname FROM nodes GROUP BY id) AS node_texts ON node_texts.id = f.node_id
LEFT JOIN (SELECT id, to_json(name)::text AS name FROM environments GROUP BY id) AS environment_texts
    ON environment_texts.id = f.environment_id
CROSS JOIN LATERAL (
    SELECT node_texts.certname, environment_texts.name AS environment, v.name_text AS name
) AS texts

-- name: from_fact_contents
-- By way of the nodes, whose facts are taken apart leaf by leaf; only those whose names are asked for, if any are.
SELECT FROM nodes n
JOIN node_facts f ON f.node_id = n.id
JOIN fact_bases b ON b.id = f.base_id
JOIN fact_shapes s ON s.id = b.shape_id
JOIN LATERAL unnest(s.names, s.templates, s.firsts, s.firsts[2:], b.leaves)
    WITH ORDINALITY AS v (name, template, first_place, next_place, leaves, number) ON true /* content */
CROSS JOIN LATERAL (SELECT NULL::text AS json /* fact_of_base */) AS shared
LEFT JOIN node_own_facts o ON o.node_id = n.id
LEFT JOIN environments e ON e.id = f.environment_id
CROSS JOIN LATERAL fact_leaves(v.name, (SELECT NULL::text AS json /* fact_in_place */)::jsonb) AS leaf

-- name: from_fact_contents_at_path
-- One path is asked for: what stands there in each node's fact, if it is a leaf. Bases are looked through first, as for facts.
SELECT FROM (
    SELECT b.id AS base_id, v.name, v.template, v.first_place, v.next_place, v.leaves, v.number, shared.json
    FROM fact_bases b
    JOIN fact_shapes s ON s.id = b.shape_id
    CROSS JOIN LATERAL unnest(s.names, s.templates, s.firsts, s.firsts[2:], b.leaves)
        WITH ORDINALITY AS v (name, template, first_place, next_place, leaves, number)
    CROSS JOIN LATERAL (SELECT NULL::text AS json /* fact_of_base */) AS shared
    WHERE true /* content */
    OFFSET 0
) AS v
JOIN node_facts f ON f.base_id = v.base_id
JOIN nodes n ON n.id = f.node_id
CROSS JOIN LATERAL (SELECT v.json) AS shared
LEFT JOIN node_own_facts o ON o.node_id = n.id
LEFT JOIN environments e ON e.id = f.environment_id
CROSS JOIN LATERAL (SELECT (SELECT NULL::text AS json /* fact_in_place */)::jsonb AS value OFFSET 0) AS fact
CROSS JOIN LATERAL (SELECT '[]'::jsonb /* path */ AS path, fact.value /* leaf */ AS value OFFSET 0) AS at_path
JOIN LATERAL (SELECT at_path.path, at_path.value) AS leaf ON jsonb_typeof(leaf.value) NOT IN ('object', 'array')

-- name: from_factsets
SELECT FROM nodes n
JOIN node_facts f ON f.node_id = n.id
LEFT JOIN environments e ON e.id = f.environment_id
LEFT JOIN producers pr ON pr.id = f.producer_id

-- name: from_inventory
-- As from_factsets, with what the facts that are named (join_fact) need.
SELECT FROM nodes n
JOIN node_facts f ON f.node_id = n.id
LEFT JOIN node_own_facts o ON o.node_id = n.id
LEFT JOIN environments e ON e.id = f.environment_id

-- name: fact_of_base
-- A fact as JSON, its template filled in with its leaves. As jsonb would write it, but for spaces and the order of names: so what
-- jsonb writes otherwise (numbers with an exponent; U+0000 and lone surrogates, the only escapes with a u besides control
-- characters) becomes one.
SELECT CASE
    WHEN %(leaves)s::text ~ E'(^|\x01)-?[0-9.]+[eE]|\\\\u' OR strpos(%(template)s::text, '\u') > 0
    THEN fact_value(%(template)s::text, coalesce(%(leaves)s::text, ''), 0, NULL, NULL)::text
    WHEN %(template)s::text = E'\x01' THEN %(leaves)s::text
    ELSE (
        SELECT string_agg(piece.part || coalesce(piece.leaf, ''), '')
        FROM unnest(string_to_array(%(template)s::text, E'\x01'), string_to_array(%(leaves)s::text, E'\x01'))
            AS piece (part, leaf)
    )
END AS json
OFFSET 0

-- name: fact_in_place
-- The same of a node: what its base says, unless the fact is its own or leaves of it move. places are sorted: as many of them below
-- the fact's first leaf as below the next fact's first means that none lies between.
SELECT CASE
    WHEN (%(own_facts)s::integer[] IS NULL OR (%(number)s::bigint - 1)::integer <> ALL (%(own_facts)s::integer[]))
         AND width_bucket(least(%(first_place)s::integer - 1, 32767)::smallint, %(places)s::smallint[])
             = width_bucket(least(coalesce(%(next_place)s::integer, 32768) - 1, 32767)::smallint, %(places)s::smallint[])
    THEN %(shared)s::text
    ELSE (
        SELECT CASE
            WHEN its.leaves ~ E'(^|\x01)-?[0-9.]+[eE]|\\\\u' OR its.moving ~ E'(^|\x01)-?[0-9.]+[eE]|\\\\u'
                 OR strpos(%(template)s::text, '\u') > 0
            THEN fact_value(%(template)s::text, coalesce(its.leaves, ''), %(first_place)s::integer, %(places)s::smallint[],
                            %(moving)s::text)::text
            WHEN its.moving IS NULL AND %(template)s::text = E'\x01' THEN its.leaves
            WHEN its.moving IS NULL THEN (
                SELECT string_agg(piece.part || coalesce(piece.leaf, ''), '')
                FROM unnest(string_to_array(%(template)s::text, E'\x01'), string_to_array(its.leaves, E'\x01'))
                    AS piece (part, leaf)
            )
            ELSE (
                SELECT string_agg(piece.part || CASE WHEN piece.leaf IS NULL THEN '' ELSE coalesce(moved.leaf, piece.leaf) END, ''
                                  ORDER BY piece.number)
                FROM unnest(string_to_array(%(template)s::text, E'\x01'), string_to_array(its.leaves, E'\x01'))
                    WITH ORDINALITY AS piece (part, leaf, number)
                LEFT JOIN unnest(%(places)s::smallint[], string_to_array(its.moving, E'\x01')) AS moved (place, leaf)
                    ON moved.place = %(first_place)s::integer + piece.number - 1
            )
        END
        FROM (
            SELECT leaf_in_place(%(leaves)s::text, (%(number)s::bigint - 1)::integer, %(own_facts)s::integer[],
                                 %(own_leaves)s::text[]) AS leaves,
                   CASE WHEN width_bucket(least(%(first_place)s::integer - 1, 32767)::smallint, %(places)s::smallint[])
                             < width_bucket(least(coalesce(%(next_place)s::integer, 32768) - 1, 32767)::smallint,
                                            %(places)s::smallint[])
                        THEN %(moving)s::text END AS moving
            OFFSET 0
        ) AS its
    )
END AS json

-- name: from_fact_paths
-- From one base of each shape, and each template once; all of them are walked through together, a level at a time.
SELECT FROM (
    WITH RECURSIVE fact AS MATERIALIZED (
        SELECT DISTINCT ON (fp.name COLLATE "C", fp.template COLLATE "C") fp.name, fp.template, fp.leaves
        FROM (SELECT DISTINCT ON (shape_id) shape_id, leaves FROM fact_bases ORDER BY shape_id) AS b
        JOIN fact_shapes s ON s.id = b.shape_id
        CROSS JOIN LATERAL unnest(s.names, s.templates, b.leaves) AS fp (name, template, leaves)
        WHERE true /* content */
        ORDER BY fp.name COLLATE "C", fp.template COLLATE "C"
    ), walk (name, path, value, kind) AS (
        SELECT v.name, jsonb_build_array(v.name), shared.value, jsonb_typeof(shared.value)
        FROM fact v
        CROSS JOIN LATERAL (SELECT (SELECT NULL::text AS json /* fact_of_base */)::jsonb AS value OFFSET 0) AS shared
        UNION ALL
        SELECT walk.name, walk.path || jsonb_build_array(child.key), child.value, jsonb_typeof(child.value)
        FROM walk
        CROSS JOIN LATERAL (
            SELECT to_jsonb(o.key) AS key, o.value
            FROM jsonb_each(CASE walk.kind WHEN 'object' THEN walk.value END) AS o
            UNION ALL
            SELECT to_jsonb(a.number - 1), a.value
            FROM jsonb_array_elements(CASE walk.kind WHEN 'array' THEN walk.value END) WITH ORDINALITY AS a (value, number)
        ) AS child
        WHERE walk.kind IN ('object', 'array')
    )
    SELECT DISTINCT walk.name, walk.path AS path_array, fact_type(walk.value) AS type
    FROM walk
    WHERE walk.kind NOT IN ('object', 'array')
) AS fp

-- name: from_fact_names
SELECT FROM fact_names fp

-- name: from_package_inventory
SELECT FROM node_package_versions v

-- name: from_packages
SELECT FROM packages v

-- name: packages_json
-- The packages of a node, as the text of a JSON array; null where it has none.
SELECT '[' || string_agg(json_build_array(v.package_name, v.version, v.provider)::text, ',') || ']'
FROM node_package_versions v
WHERE v.node_id = %(node_id)s::integer

-- name: fact_by_name
-- One fact of the node of a row f of node_facts: the compiler puts its columns and the name where the parameters are. By its place in
-- the arrays: to take them apart costs five times as much.
SELECT (SELECT NULL::text AS json /* fact_in_place */)::jsonb
FROM fact_bases b
JOIN fact_shapes s ON s.id = b.shape_id
LEFT JOIN node_own_facts o ON o.node_id = %(node_id)s::integer
CROSS JOIN LATERAL (SELECT array_position(s.names, %(name)s::text)::bigint AS number OFFSET 0) AS place
CROSS JOIN LATERAL (
    SELECT place.number, s.templates[place.number] AS template, s.firsts[place.number] AS first_place,
           s.firsts[place.number + 1] AS next_place, b.leaves[place.number] AS leaves
    OFFSET 0
) AS v
CROSS JOIN LATERAL (SELECT NULL::text AS json /* fact_of_base */) AS shared
WHERE b.id = %(base_id)s::integer AND place.number IS NOT NULL

-- name: join_fact
-- A fact that a query names, joined to the rows f of node_facts, o and n: what nodes of one base share is looked for once. The compiler
-- puts a name where this_base and this_fact stand, and leaves out the first line.
SELECT FROM node_facts f JOIN nodes n ON n.id = f.node_id LEFT JOIN node_own_facts o ON o.node_id = f.node_id
LEFT JOIN LATERAL (
    SELECT v.number, v.template, v.first_place, v.next_place, v.leaves, shared.json
    FROM fact_bases b
    JOIN fact_shapes s ON s.id = b.shape_id
    CROSS JOIN LATERAL (SELECT array_position(s.names, %(name)s::text)::bigint AS number OFFSET 0) AS place
    CROSS JOIN LATERAL (
        SELECT place.number, s.templates[place.number] AS template, s.firsts[place.number] AS first_place,
               s.firsts[place.number + 1] AS next_place, b.leaves[place.number] AS leaves
        OFFSET 0
    ) AS v
    CROSS JOIN LATERAL (SELECT NULL::text AS json /* fact_of_base */) AS shared
    WHERE b.id = f.base_id AND place.number IS NOT NULL
    OFFSET 0
) AS this_base ON true
CROSS JOIN LATERAL (
    SELECT (
        SELECT (SELECT NULL::text AS json /* fact_in_place */)
        FROM (SELECT this_base.*) AS v
        CROSS JOIN LATERAL (SELECT v.json) AS shared
        WHERE v.number IS NOT NULL
    )::jsonb AS value
) AS this_fact

-- name: factset_json
-- The facts of the node of a row f of node_facts, as the text of a JSON array.
SELECT '[' || coalesce(string_agg('{"name":' || to_json(v.name) || ',"value":' || (SELECT NULL::text AS json /* fact_in_place */) || '}',
                                  ','), '') || ']'
FROM fact_bases b
JOIN fact_shapes s ON s.id = b.shape_id
LEFT JOIN node_own_facts o ON o.node_id = %(node_id)s::integer
CROSS JOIN LATERAL unnest(s.names, s.templates, s.firsts, s.firsts[2:], b.leaves)
    WITH ORDINALITY AS v (name, template, first_place, next_place, leaves, number)
CROSS JOIN LATERAL (SELECT NULL::text AS json /* fact_of_base */) AS shared
WHERE b.id = %(base_id)s::integer

-- name: factset_object
-- The same as that of an object.
SELECT '{' || coalesce(string_agg(to_json(v.name) || ':' || (SELECT NULL::text AS json /* fact_in_place */), ','), '') || '}'
FROM fact_bases b
JOIN fact_shapes s ON s.id = b.shape_id
LEFT JOIN node_own_facts o ON o.node_id = %(node_id)s::integer
CROSS JOIN LATERAL unnest(s.names, s.templates, s.firsts, s.firsts[2:], b.leaves)
    WITH ORDINALITY AS v (name, template, first_place, next_place, leaves, number)
CROSS JOIN LATERAL (SELECT NULL::text AS json /* fact_of_base */) AS shared
WHERE b.id = %(base_id)s::integer

-- name: from_reports
SELECT FROM node_reports r
JOIN nodes n ON n.id = r.node_id
JOIN report_headers h ON h.id = r.header_id

-- name: from_events
SELECT FROM node_reports r
JOIN nodes n ON n.id = r.node_id
JOIN report_headers h ON h.id = r.header_id
CROSS JOIN LATERAL unnest(r.event_ids, r.event_offsets) AS o (event_id, microseconds)
JOIN event_contents ev ON ev.id = o.event_id

-- name: from_distinct_events
-- The newest event of each property of a resource between two times: the row that another one follows is left out.
SELECT FROM (
    SELECT all_events.*
    FROM (
        SELECT r.node_id, r.hash, r.producer_timestamp, r.header_id, r.configuration_version, r.start_time, r.end_time,
               r.received_at, o.event_id, o.microseconds,
               row_number() OVER (
                   PARTITION BY r.node_id, c.resource_type, c.resource_title, c.property, c.name
                   ORDER BY r.start_time + o.microseconds * interval '1 microsecond' DESC
               ) AS age
        FROM node_reports r
        CROSS JOIN LATERAL unnest(r.event_ids, r.event_offsets) AS o (event_id, microseconds)
        JOIN event_contents c ON c.id = o.event_id
        WHERE r.start_time + o.microseconds * interval '1 microsecond' BETWEEN %(distinct_start)s AND %(distinct_end)s
    ) AS all_events
    WHERE all_events.age = 1
) AS r
JOIN nodes n ON n.id = r.node_id
JOIN report_headers h ON h.id = r.header_id
CROSS JOIN LATERAL (SELECT r.microseconds AS microseconds) AS o
JOIN event_contents ev ON ev.id = r.event_id

-- name: report_events_json
SELECT coalesce(json_agg(json_build_object(
    'status', c.status, 'timestamp', to_char((%(start_time)s::timestamptz + o.microseconds * interval '1 microsecond')
        AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'resource_type', c.resource_type, 'resource_title', c.resource_title, 'property', c.property,
    'corrective_change', c.corrective_change, 'new_value', c.new_value::jsonb, 'old_value', c.old_value::jsonb,
    'message', c.message, 'file', c.file, 'line', c.line, 'containment_path', c.containment_path,
    'containing_class', c.containing_class, 'name', c.name) ORDER BY o.place), '[]'::json)
FROM unnest(%(event_ids)s::integer[], %(event_offsets)s::bigint[]) WITH ORDINALITY AS o (event_id, microseconds, place)
JOIN event_contents c ON c.id = o.event_id

-- name: report_logs_json
SELECT json_agg(json_build_object(
    'file', c.file, 'line', c.line, 'level', c.level, 'message', coalesce(c.message, e.message), 'source', c.source,
    'tags', c.tags, 'time', to_char((%(start_time)s::timestamptz + o.microseconds * interval '1 microsecond')
        AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) ORDER BY o.place)
FROM unnest(%(log_ids)s::integer[], %(log_offsets)s::bigint[]) WITH ORDINALITY AS o (log_id, microseconds, place)
JOIN log_contents c ON c.id = o.log_id
LEFT JOIN event_contents e ON e.id = c.event_id

-- name: report_metrics_json
-- As report_values has it, as the text of a JSON array; a function would be planned anew in each statement.
SELECT '[' || coalesce(string_agg(
    '{"category":' || (each.name -> 0)::text || ',"name":' || (each.name -> 1)::text || ',"value":'
    || CASE WHEN %(metrics_exact)s::text IS NOT NULL THEN (%(metrics_exact)s::jsonb -> (each.place::integer - 1))::text
            WHEN each.name -> 2 = 'true' THEN coalesce(each.value, 0)::bigint::text
            ELSE to_jsonb(coalesce(each.value, 0))::text END || '}', ','), '') || ']'
FROM metric_shapes s
CROSS JOIN LATERAL ROWS FROM (jsonb_array_elements(s.names), unnest(%(metrics)s::double precision[]))
    WITH ORDINALITY AS each (name, value, place)
WHERE s.id = %(shape_id)s

-- name: from_catalog_inputs
SELECT FROM node_inputs i
JOIN nodes n ON n.id = i.node_id

-- name: catalog_inputs_json
SELECT json_agg(json_build_array(input.type, input.name))
FROM unnest(%(types)s::text[], %(names)s::text[]) AS input (type, name)

-- name: from_catalog_input_contents
SELECT FROM catalog_inputs i
