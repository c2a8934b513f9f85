-- The holder of a lock that an operator removes is told.
CREATE FUNCTION {lock_removed}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET trace_notify = off AS $pgsession$
BEGIN
    IF TG_RELID <> {locks_oid} THEN
        {refuse_table};
    END IF;
    PERFORM pg_notify({channel}, {plain_sender} || ' ' || {lock_ended(OLD.resource, OLD.token)});
    RETURN NULL;
END $pgsession$;
