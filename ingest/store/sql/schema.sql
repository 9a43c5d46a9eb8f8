-- name: create_migrations_table
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: has_migrations_table
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = 'schema_migrations' AND c.relkind = 'r' AND n.nspname = %s
)

-- name: schema_version
SELECT coalesce(max(number), 0) FROM schema_migrations

-- name: record_migration
INSERT INTO schema_migrations (number, name) VALUES (%s, %s)

-- name: grant_engine
-- What ingest run needs when somebody else owns and migrates the schema. TEMPORARY: its staging tables.
GRANT TEMPORARY ON DATABASE {database} TO {role};
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT USAGE ON SCHEMA storeconfigs TO {role};
GRANT SELECT ON schema_migrations TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON nodes, catalog_resources, catalog_exports, quarantine TO {role};
GRANT SELECT, INSERT, UPDATE ON catalogs TO {role};
-- Content is never changed, only collected.
GRANT SELECT, INSERT, DELETE ON tags, positions, resources, edge_sets, position_sets, exported_texts TO {role};
GRANT SELECT, INSERT, DELETE ON environments, producers TO {role};
GRANT SELECT, INSERT, DELETE ON fact_shapes, fact_bases, package_versions, package_sets TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON node_facts, node_own_facts, node_packages TO {role};
GRANT SELECT ON node_fact_values, node_factsets, node_package_versions, factsets, facts, fact_contents, fact_names, fact_paths,
    inventory, package_inventory, packages TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON engines TO {role};
GRANT SELECT, UPDATE ON content_state TO {role};
GRANT SELECT, INSERT, UPDATE ON node_locks TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON metric_shapes, report_headers, event_contents, log_contents, node_latest_reports TO {role};
GRANT SELECT, INSERT ON node_reports TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON node_expirations, node_inputs, node_rhythms TO {role};
GRANT SELECT ON node_freshness, fleet_rhythm TO {role};
GRANT EXECUTE ON FUNCTION ensure_report_days(date[]), drop_report_day(date), empty_report_day(date),
    forget_report_events(date, integer) TO {role};
GRANT SELECT ON reports, resource_events, report_logs, report_metrics, latest_reports, catalog_inputs TO {role};
GRANT SELECT ON node_catalogs, node_resources, exported_resources, edges TO {role}

-- name: grant_reader
-- What collectors and tools need: the views, and nothing that lies under them.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT USAGE ON SCHEMA storeconfigs TO {role};
GRANT SELECT ON node_catalogs, node_resources, exported_resources, edges TO {role};
GRANT SELECT ON reports, resource_events, report_logs, report_metrics, latest_reports, catalog_inputs, node_freshness, fleet_rhythm TO
    {role};
GRANT SELECT ON node_fact_values, node_factsets, node_package_versions, factsets, facts, fact_contents, fact_names, fact_paths,
    inventory, package_inventory, packages TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA storeconfigs TO {role}

-- name: grant_front
-- What queries over PuppetDB's interface and the live page read: catalogs and facts as they are stored, of the quarantine what
-- is counted and listed, and no locks.
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT ON schema_migrations, nodes, environments, producers, catalogs, catalog_resources, catalog_exports, resources,
    exported_texts, tags, positions, position_sets, edge_sets, node_facts, node_fact_values, node_factsets, fact_paths, fact_names,
    node_package_versions, packages, node_reports, node_latest_reports, report_headers, event_contents, log_contents,
    metric_shapes, node_inputs, catalog_inputs, node_expirations, fact_bases, fact_shapes, node_own_facts, node_freshness,
    fleet_rhythm TO {role};
GRANT SELECT (reason, attempts, last_seen, certname) ON quarantine TO {role}

-- name: create_role
CREATE ROLE {role}

-- name: set_login
-- The password as PostgreSQL keeps it, so that no log has it.
ALTER ROLE {role} LOGIN PASSWORD {verifier}

-- name: find_role
-- Not "public", which is everybody.
SELECT rolname::text FROM pg_roles WHERE rolname::text = %s::text

-- name: database_name
-- Not the name that we connected to: a pooler may have another one for it.
SELECT current_database()::text
