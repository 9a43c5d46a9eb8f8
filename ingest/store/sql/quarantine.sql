-- name: list_quarantine
SELECT id, reason, detail, certname, headers, NULL::bytea, body_note, body_bytes, attempts, first_seen, last_seen
FROM quarantine
WHERE %(reason)s::text IS NULL OR reason = %(reason)s
ORDER BY last_seen DESC, id DESC
LIMIT %(limit)s

-- name: show_quarantine
SELECT id, reason, detail, certname, headers, body, body_note, body_bytes, attempts, first_seen, last_seen
FROM quarantine WHERE id = %s

-- name: drop_quarantine
-- Locked in the order in which writers lock them.
WITH chosen AS MATERIALIZED (
    SELECT id FROM quarantine WHERE id = ANY (%s) ORDER BY digest FOR UPDATE
)
DELETE FROM quarantine WHERE id IN (SELECT id FROM chosen)
