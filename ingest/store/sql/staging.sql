-- name: create_staging
-- Session-local and never in the WAL. The commit of a transaction that touched one of them empties them all, which takes
-- a millisecond: headers of catalogs, which every transaction writes, come as parameters.
CREATE TEMPORARY TABLE IF NOT EXISTS stage_tags (digest bytea, name text) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_positions (digest bytea, file text, line bigint, exact bytea) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_resources (
    digest bytea, exported boolean, type text, title text, kind "char", tag_ids integer[], parameters jsonb,
    exact bytea
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_edge_sets (
    digest bytea, sources integer[], targets integer[], relationships smallint[]
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_position_sets (
    digest bytea, position_ids integer[]
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_catalog_resources (
    node_id integer, chunk integer, known boolean, resource_ids integer[]
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_catalog_exports (
    node_id integer, known boolean, resource_ids integer[]
) ON COMMIT DELETE ROWS

-- name: copy_tags
COPY stage_tags FROM STDIN (FORMAT BINARY)

-- name: copy_positions
COPY stage_positions FROM STDIN (FORMAT BINARY)

-- name: copy_resources
COPY stage_resources FROM STDIN (FORMAT BINARY)

-- name: copy_edge_sets
COPY stage_edge_sets FROM STDIN (FORMAT BINARY)

-- name: copy_position_sets
COPY stage_position_sets FROM STDIN (FORMAT BINARY)

-- name: copy_catalog_resources
COPY stage_catalog_resources FROM STDIN (FORMAT BINARY)

-- name: copy_catalog_exports
COPY stage_catalog_exports FROM STDIN (FORMAT BINARY)
