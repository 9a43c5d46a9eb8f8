-- The quarantine is thinned out instead of ending the engine: a row for each node and reason with the newest body and
-- a count, a few rows of what names no node. `digest` is still what a row is known by, so that an engine of the version
-- before can go on beside this one.

ALTER TABLE quarantine
    ADD COLUMN producer text,
    ADD COLUMN thinned bigint NOT NULL DEFAULT 0,  -- of the attempts: different messages whose bodies are not kept
    ADD COLUMN body_digest bytea,                  -- SHA-256 of the body as it arrived; null: nobody said
    ADD COLUMN received_at timestamptz;            -- when the message of this body did; null: nobody said

-- Finding the oldest of what names no node.
CREATE INDEX quarantine_unnamed ON quarantine (reason, coalesce(producer, ''), last_seen) WHERE certname IS NULL;
