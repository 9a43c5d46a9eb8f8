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
