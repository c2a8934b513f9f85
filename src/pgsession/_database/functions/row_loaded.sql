-- Ignores what a dump brings for tables whose rows are this database's own: the incarnation, the nodes, the beacon and the versions
-- of the schema always, the buckets where they are there already. Otherwise the load would fail, or tell of what was not done here.
CREATE FUNCTION {row_loaded}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    IF TG_RELID NOT IN ({incarnation_oid}, {nodes_oid}, {beacon_oid}, {versions_oid}, {buckets_oid}) THEN
        {refuse_table};
    END IF;
    IF TG_RELID = {buckets_oid} THEN
        RETURN CASE WHEN NOT EXISTS (SELECT FROM {buckets} b WHERE b.bucket = NEW.bucket) THEN NEW END;
    END IF;
    RETURN NULL;
END $pgsession$;
