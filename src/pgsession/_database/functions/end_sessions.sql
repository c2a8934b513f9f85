-- Deletes sessions that the transaction has locked, with what belongs to them; null: none.
CREATE FUNCTION {end_sessions}(ids uuid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $pgsession$
BEGIN
    IF ids IS NOT NULL THEN
        PERFORM {end_belongings}(ids);
        DELETE FROM {sessions} s WHERE s.id = ANY (ids);
    END IF;
END $pgsession$;
