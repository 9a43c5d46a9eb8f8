-- When an instance began to keep house last, so that of several on one database one does it. Those of the version before do it besides.
ALTER TABLE content_state ADD COLUMN house_kept_at timestamptz;
