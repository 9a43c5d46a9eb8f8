-- name: may_stage
SELECT has_database_privilege(current_database(), 'TEMPORARY')

-- name: create_stage_resources
-- Session-local and never in the WAL; made when a connection first has many rows for it. The commit of a transaction that
-- touched one of them empties all that there are, which takes a tenth of a millisecond each: what can come as parameters does.
CREATE TEMPORARY TABLE IF NOT EXISTS stage_resources (
    digest bytea, exported boolean, type text, title text, kind "char", tag_ids integer[], parameters jsonb,
    exact bytea
) ON COMMIT DELETE ROWS

-- name: create_stage_edge_sets
CREATE TEMPORARY TABLE IF NOT EXISTS stage_edge_sets (
    digest bytea, sources integer[], targets integer[], relationships smallint[]
) ON COMMIT DELETE ROWS

-- name: create_stage_position_sets
CREATE TEMPORARY TABLE IF NOT EXISTS stage_position_sets (
    digest bytea, position_ids integer[]
) ON COMMIT DELETE ROWS

-- name: copy_resources
COPY stage_resources FROM STDIN (FORMAT BINARY)

-- name: copy_edge_sets
COPY stage_edge_sets FROM STDIN (FORMAT BINARY)

-- name: copy_position_sets
COPY stage_position_sets FROM STDIN (FORMAT BINARY)
