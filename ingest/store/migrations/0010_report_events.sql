-- Events may go before their reports do: resource_events_ttl_s.

-- Which reports still have events, so that nobody looks through days in which none has.
CREATE INDEX node_reports_events ON node_reports (producer_timestamp) WHERE event_ids <> '{}';

-- Takes the events out of so many reports of the oldest day before that one which has any; how many it were. Logs that repeat
-- an event's message keep it.
CREATE FUNCTION forget_report_events(before date, reports_max integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    name text;
    done integer;
BEGIN
    FOR name IN
        SELECT c.relname
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'node_reports'::regclass
          AND c.relname < 'node_reports_' || to_char(before, 'YYYYMMDD')
        ORDER BY c.relname
    LOOP
        EXECUTE format(
            'UPDATE %1$I SET event_ids = ''{}'', event_offsets = ''{}'' WHERE ctid = ANY (ARRAY('
            'SELECT ctid FROM %1$I WHERE event_ids <> ''{}'' LIMIT %2$s FOR UPDATE SKIP LOCKED))', name, reports_max
        );
        GET DIAGNOSTICS done = ROW_COUNT;
        IF done > 0 THEN
            RETURN done;
        END IF;
    END LOOP;
    RETURN 0;
END
$$;

-- Of the old storeconfigs: when a node's last run began.
CREATE OR REPLACE VIEW storeconfigs.hosts AS
SELECT n.id, n.certname AS name, NULL::text AS ip, e.name AS environment,
       c.producer_timestamp AS last_compile, NULL::timestamptz AS last_freshcheck,
       l.start_time AS last_report, c.received_at AS updated_at, NULL::bigint AS source_file_id,
       NULL::timestamptz AS created_at
FROM nodes n
LEFT JOIN catalogs c ON c.node_id = n.id
LEFT JOIN environments e ON e.id = c.environment_id
LEFT JOIN node_latest_reports l ON l.node_id = n.id
WHERE n.deactivated IS NULL AND n.expired IS NULL;

-- Whoever may run the engine already may do so with what is new.
DO $$
DECLARE
    engine_role text;
BEGIN
    EXECUTE format('ALTER FUNCTION forget_report_events(date, integer) SET search_path = %I, pg_temp', current_schema());
    REVOKE ALL ON FUNCTION forget_report_events(date, integer) FROM PUBLIC;
    FOR engine_role IN
        SELECT DISTINCT pg_get_userbyid(granted.grantee)
        FROM pg_class c
        CROSS JOIN LATERAL aclexplode(c.relacl) AS granted
        WHERE c.oid = 'environments'::regclass AND granted.privilege_type = 'INSERT'
          AND granted.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION forget_report_events(date, integer) TO %I', engine_role);
    END LOOP;
END
$$;
