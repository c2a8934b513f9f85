-- Sends a proof of sync to a node's own listener.
CREATE FUNCTION {prove}(node text, proof text, OUT now bigint, OUT incarnation text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
#variable_conflict use_column
BEGIN
    PERFORM pg_notify({name_channel}('proof ' || node), proof);
    now := {us(clock_timestamp())};
    incarnation := {current_incarnation};
END $pgsession$;
