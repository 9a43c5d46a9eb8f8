"""The same catalogs into PuppetDB and into this engine, in one run, against one PostgreSQL."""
