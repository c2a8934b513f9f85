-- Locks the rows of sessions for an update; returns those that are there and, unless one waits, that nobody else has.
CREATE FUNCTION {lock_sessions}(ids uuid[], waiting boolean) RETURNS uuid[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    IF waiting THEN
        RETURN ARRAY(SELECT s.id FROM {sessions} s WHERE s.id = ANY (ids) ORDER BY s.id FOR NO KEY UPDATE);
    END IF;
    RETURN ARRAY(SELECT s.id FROM {sessions} s WHERE s.id = ANY (ids) ORDER BY s.id FOR NO KEY UPDATE SKIP LOCKED);
END $pgsession$;
