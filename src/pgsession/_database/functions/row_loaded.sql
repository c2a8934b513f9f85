-- Ignores what a dump brings for tables whose rows are this database's own: the incarnation and the nodes always, the
-- versions of the schema and the buckets where they are there already. Otherwise the load would fail.
CREATE FUNCTION {row_loaded}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    known boolean := true;
BEGIN
    IF TG_RELID NOT IN ({incarnation_oid}, {nodes_oid}, {versions_oid}, {buckets_oid}) THEN
        {refuse_table};
    END IF;
    CASE TG_ARGV[0]
        WHEN 'versions' THEN known := EXISTS (SELECT FROM {versions} v WHERE v.version = NEW.version);
        WHEN 'buckets' THEN known := EXISTS (SELECT FROM {buckets} b WHERE b.bucket = NEW.bucket);
        ELSE
    END CASE;
    RETURN CASE WHEN NOT known THEN NEW END;
END $pgsession$;
