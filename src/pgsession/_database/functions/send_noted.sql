-- Sends what a statement of plain SQL has changed.
CREATE FUNCTION {send_noted}() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    IF current_setting('pgsession.noted', true) <> '' THEN
        PERFORM pg_notify({channel}, {plain} || current_setting('pgsession.noted', true)),
                set_config('pgsession.noted', '', true);
    END IF;
    RETURN NULL;
END $pgsession$;
