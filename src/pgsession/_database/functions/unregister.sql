-- Removes a node that serves nothing any more.
CREATE FUNCTION {unregister}(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    DELETE FROM {nodes} n WHERE n.node = name;
END $pgsession$;
