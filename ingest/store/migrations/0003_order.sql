-- Names that no node has any more are collected, messages without a time keep their order when a broker delivers them again,
-- and parameters of the old storeconfigs have ids of their own. docs/decisions/0008-order.md, 0003-store.md.

-- Engines that get messages without any time tell here how far they have settled what they hold. A message that is delivered
-- again was first delivered no earlier than that.
CREATE TABLE engines (
    id              bigint PRIMARY KEY,   -- of one run of an engine
    unsettled_since timestamptz NOT NULL, -- what it holds unsettled it got no earlier
    takes_new       boolean NOT NULL,     -- it has had messages that nobody had before it
    seen            timestamptz NOT NULL
);

-- Environments and producers are collected while no writer refers to them, and writers forget what they remember. One of the
-- version before remembers a name's id for as long as its connection lives: what it would write then is refused once, with
-- a SQLSTATE on which it connects again and asks anew. Not a foreign key: that would lock the name's row in the WAL for
-- each node, and look through all catalogs for each name that goes.
CREATE FUNCTION require_names() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.environment_id IS NOT NULL AND NOT EXISTS (SELECT FROM environments WHERE id = NEW.environment_id))
       OR (NEW.producer_id IS NOT NULL AND NOT EXISTS (SELECT FROM producers WHERE id = NEW.producer_id)) THEN
        RAISE serialization_failure USING MESSAGE = 'the name of an environment or producer was collected meanwhile';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER names_of_new_catalog AFTER INSERT ON catalogs
    FOR EACH ROW WHEN (NEW.environment_id IS NOT NULL OR NEW.producer_id IS NOT NULL)
    EXECUTE FUNCTION require_names();

CREATE TRIGGER names_of_changed_catalog AFTER UPDATE OF environment_id, producer_id ON catalogs
    FOR EACH ROW WHEN (
        NEW.environment_id IS DISTINCT FROM OLD.environment_id OR NEW.producer_id IS DISTINCT FROM OLD.producer_id
    )
    EXECUTE FUNCTION require_names();

-- Whoever may run the engine already may do so with what is new.
DO $$
DECLARE
    engine_role text;
BEGIN
    EXECUTE format('ALTER FUNCTION require_names() SET search_path = %I, pg_temp', current_schema());
    FOR engine_role IN
        SELECT DISTINCT pg_get_userbyid(granted.grantee)
        FROM pg_class c
        CROSS JOIN LATERAL aclexplode(c.relacl) AS granted
        WHERE c.oid = 'environments'::regclass AND granted.privilege_type = 'INSERT'
          AND granted.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('GRANT DELETE ON environments, producers TO %I', engine_role);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON engines TO %I', engine_role);
    END LOOP;
END
$$;

-- The ids of the first 64 values of a resource are as they were. Those of further ones, which took the ids of the next
-- resource, are below zero, where no other is: 63 bits of a hash of the resource's id and the value's place. So are all of
-- a host whose number leaves no room for six bits more. Not hashint8extended: it folds an id's two halves into one.
CREATE OR REPLACE VIEW storeconfigs.param_values AS
SELECT CASE WHEN numbered.place <= 64 AND numbered.host_id < 33554432 THEN numbered.resource_id * 64 + numbered.place
            ELSE hashtextextended(numbered.resource_id::text, numbered.place) | (-9223372036854775808) END AS id,
       numbered.value, numbered.param_name_id, numbered.line, numbered.resource_id
FROM (
    SELECT row_number() OVER (PARTITION BY r.id ORDER BY k.name, v.place) AS place, v.value,
           ('x0' || left(md5(k.name), 15))::bit(64)::bigint AS param_name_id, r.line, r.id AS resource_id, r.host_id
    FROM storeconfigs.resources r
    JOIN resources content ON content.id = r.content_id
    CROSS JOIN LATERAL jsonb_each(content.parameters) AS k (name, given)
    CROSS JOIN LATERAL jsonb_array_elements_text(
        CASE jsonb_typeof(k.given) WHEN 'array' THEN k.given ELSE jsonb_build_array(k.given) END
    ) WITH ORDINALITY AS v (value, place)
) AS numbered;
