"""The only SQL of the engine: migrations, named queries, COPY."""
