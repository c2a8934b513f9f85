-- Sends a payload of a node to every node.
CREATE FUNCTION {send}(payload text, OUT now bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    PERFORM pg_notify({channel}, payload);
    now := {us(clock_timestamp())};
END $pgsession$;
