-- name: quarantine
-- A message joins the row of what is the same: counts add up, the newest body stays. Returns how many more are thinned.
WITH earlier AS (SELECT thinned FROM quarantine WHERE digest = %(digest)s)
INSERT INTO quarantine AS q (
    digest, reason, detail, certname, producer, headers, body, body_note, body_bytes, body_digest, received_at,
    attempts, thinned
)
VALUES (
    %(digest)s, %(reason)s, %(detail)s, %(certname)s, %(producer)s, %(headers)s, %(body)s, %(body_note)s,
    %(body_bytes)s, %(body_digest)s, %(received_at)s, %(attempts)s, %(thinned)s
)
ON CONFLICT (digest) DO UPDATE SET (
    detail, producer, headers, body, body_note, body_bytes, body_digest, received_at, attempts, thinned, last_seen
) = (
    SELECT
        CASE WHEN newer THEN excluded.detail ELSE q.detail END,
        CASE WHEN newer THEN excluded.producer ELSE q.producer END,
        CASE WHEN newer THEN excluded.headers ELSE q.headers END,
        -- The same body is not written once more.
        CASE WHEN newer AND (differs OR q.body IS NULL) THEN excluded.body ELSE q.body END,
        CASE WHEN newer AND (differs OR q.body IS NULL) THEN excluded.body_note ELSE q.body_note END,
        CASE WHEN newer THEN excluded.body_bytes ELSE q.body_bytes END,
        CASE WHEN newer THEN excluded.body_digest ELSE q.body_digest END,
        CASE WHEN newer THEN excluded.received_at ELSE q.received_at END,
        least(q.attempts::bigint + excluded.attempts, 2147483647)::integer,
        q.thinned + excluded.thinned + (differs AND q.body IS NOT NULL)::integer,
        now()
    FROM (SELECT
        excluded.received_at >= coalesce(q.received_at, '-infinity') AS newer,
        q.body_digest IS DISTINCT FROM excluded.body_digest AS differs
    ) AS compared
)
RETURNING thinned - coalesce((SELECT thinned FROM earlier), 0)

-- name: thin_unnamed
-- Of one producer's messages that name no node, for one reason, the newest stay; the row of this digest counts the
-- others. Whoever is at work on a row keeps it.
WITH old AS MATERIALIZED (
    SELECT id FROM quarantine
    WHERE id IN (
        SELECT id FROM quarantine
        WHERE certname IS NULL AND reason = %(reason)s AND coalesce(producer, '') = coalesce(%(producer)s::text, '')
            AND digest <> %(digest)s
        ORDER BY last_seen DESC, id DESC OFFSET %(others)s
    )
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM quarantine WHERE id IN (SELECT id FROM old) RETURNING attempts, thinned, body IS NOT NULL AS had_body
), counted AS (
    SELECT sum(attempts) AS attempts, sum(thinned + had_body::integer) AS thinned, count(*) AS messages FROM gone
)
UPDATE quarantine q
SET attempts = least(q.attempts + counted.attempts, 2147483647)::integer, thinned = q.thinned + counted.thinned
FROM counted WHERE q.digest = %(digest)s AND counted.messages > 0
RETURNING counted.messages

-- name: quarantine_size
SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM quarantine

-- name: drop_bodies
-- What is beyond the limit, so that nodes that we know come first and each producer keeps its newest: the row, its headers
-- and its count stay.
WITH sized AS (
    SELECT q.id, octet_length(body) AS bytes, n.id IS NULL AS is_stranger,
        sum(octet_length(body)) OVER (PARTITION BY n.id IS NULL, producer ORDER BY last_seen DESC, q.id DESC) AS of_producer
    FROM quarantine q LEFT JOIN nodes n USING (certname) WHERE body IS NOT NULL
), ranked AS (
    SELECT id, sum(bytes) OVER (ORDER BY is_stranger, of_producer, id) AS total FROM sized
), chosen AS MATERIALIZED (
    SELECT id FROM quarantine WHERE id IN (SELECT id FROM ranked WHERE total > %(bytes_max)s) FOR UPDATE SKIP LOCKED
)
UPDATE quarantine q
SET body = NULL, body_note = 'dropped: the quarantine was over quarantine_bytes_max', thinned = q.thinned + 1
FROM chosen WHERE q.id = chosen.id

-- name: drop_rows
-- What is beyond the limit, so that nodes that we know come first (names are made up at no cost), and each producer keeps its
-- newest.
WITH ranked AS (
    SELECT q.id, last_seen, n.id IS NULL AS is_stranger,
        row_number() OVER (PARTITION BY n.id IS NULL, producer ORDER BY last_seen DESC, q.id DESC) AS of_producer
    FROM quarantine q LEFT JOIN nodes n USING (certname)
), chosen AS MATERIALIZED (
    SELECT id FROM quarantine
    WHERE id IN (SELECT id FROM ranked ORDER BY is_stranger, of_producer, last_seen DESC, id DESC OFFSET %(rows_max)s)
    FOR UPDATE SKIP LOCKED
)
DELETE FROM quarantine WHERE id IN (SELECT id FROM chosen)

-- name: list_quarantine
-- The kind is that of the command that the message's headers name, or the start of its body.
SELECT id, reason, detail, certname, producer, headers, NULL::bytea, body_note, body_bytes, octet_length(body),
    body_digest, attempts, thinned, first_seen, last_seen, kind
FROM quarantine
CROSS JOIN LATERAL (SELECT
    coalesce(
        replace(headers ->> 'command', '_', ' '),
        substring(encode(substring(body FOR 512), 'escape') FROM '^\s*\{\s*"command"\s*:\s*"([\w ]{1,100})"')
    ) AS command
) AS said
CROSS JOIN LATERAL (SELECT coalesce(%(kinds)s::jsonb ->> command, command, 'catalog') AS kind) AS of_kind
WHERE (%(reason)s::text IS NULL OR reason = %(reason)s) AND (%(kind)s::text IS NULL OR kind = %(kind)s)
ORDER BY last_seen DESC, id DESC
LIMIT %(limit)s

-- name: show_quarantine
SELECT id, reason, detail, certname, producer, headers, CASE WHEN %(with_body)s THEN body END, body_note, body_bytes,
    octet_length(body), body_digest, attempts, thinned, first_seen, last_seen
FROM quarantine WHERE id = %(id)s

-- name: drop_given_back
-- Unless another message of the node has taken its place meanwhile.
DELETE FROM quarantine WHERE id = %(id)s AND last_seen = %(last_seen)s

-- name: drop_quarantine
-- Locked in the order in which writers lock them.
WITH chosen AS MATERIALIZED (
    SELECT id FROM quarantine WHERE id = ANY (%s) ORDER BY digest FOR UPDATE
)
DELETE FROM quarantine WHERE id IN (SELECT id FROM chosen)
