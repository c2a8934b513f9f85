-- Sends what a statement of plain SQL has changed. Anybody can put something else into the setting: nothing goes out that is not
-- about sessions.
CREATE FUNCTION {send_noted}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET trace_notify = off AS $pgsession$
DECLARE
    noted text := current_setting('pgsession.noted', true);
BEGIN
    IF TG_RELID <> {sessions_oid} THEN
        {refuse_table};
    END IF;
    IF noted <> '' THEN
        PERFORM pg_notify({channel}, {plain_sender} || CASE WHEN noted ~ {items} THEN noted ELSE ' A' END),
                set_config('pgsession.noted', '', true);
    END IF;
    RETURN NULL;
END $pgsession$;
