-- Sends items of a node to every node.
CREATE FUNCTION {send}(node text, items text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    PERFORM pg_notify({channel}, {sender(node)} || ' ' || items);
END $pgsession$;
