-- Ignores what a dump brings for tables whose rows are this database's own: the incarnation and the nodes always, the
-- versions of the schema and the buckets where they are there already. Otherwise the load would fail.
CREATE FUNCTION {row_loaded}() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    IF TG_ARGV[0] = 'versions' AND NOT EXISTS (SELECT FROM {versions} v WHERE v.version = NEW.version) THEN
        RETURN NEW;
    ELSIF TG_ARGV[0] = 'buckets' AND NOT EXISTS (SELECT FROM {buckets} b WHERE b.bucket = NEW.bucket) THEN
        RETURN NEW;
    END IF;
    RETURN NULL;
END $pgsession$;
