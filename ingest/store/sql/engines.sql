-- name: tell_engine
INSERT INTO engines AS told (id, unsettled_since, takes_new, seen) VALUES (%s, %s, %s, now())
ON CONFLICT (id) DO UPDATE
SET unsettled_since = greatest(told.unsettled_since, excluded.unsettled_since), takes_new = excluded.takes_new, seen = now()

-- name: forget_engine
DELETE FROM engines WHERE id = %s

-- name: oldest_unsettled
-- Since when an engine, at work or lately lost, may have held a message while another one stored what was sent after it. A
-- minute: a broker misses the heart-beats of a lost one within three intervals, and then gives out again what it held.
SELECT min(held.unsettled_since) FROM engines held
WHERE held.seen > now() - interval '1 minute' AND EXISTS (
    SELECT FROM engines other
    WHERE other.id <> held.id AND other.takes_new AND other.seen > held.unsettled_since
      -- A broker gives out again before it gives out what is new: what the asking engine took after that it stores after it.
      AND (other.id <> %(asking)s OR %(own_counts)s)
)

-- name: forget_engines
-- That ended without a word, long ago.
DELETE FROM engines WHERE seen < now() - interval '1 day'

-- name: engines_at_work
-- How many of each version write to this database: each has a writer of the number 0, and some may be away just now.
SELECT version, max(sessions)::integer
FROM (
    SELECT substring(application_name FROM '^ingest writer-[0-9]+ (\S+) [0-9a-f]{16}$') AS version, count(*) AS sessions
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name ~ '^ingest writer-[0-9]+ '
    GROUP BY 1, split_part(application_name, ' ', 2)
) AS writers
GROUP BY version
ORDER BY version
