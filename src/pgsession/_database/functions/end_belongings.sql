-- Removes the attributes of sessions that are going, and ends their locks, which the holders are told.
CREATE FUNCTION {end_belongings}(ids uuid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $pgsession$
DECLARE
    ended text[];
BEGIN
    DELETE FROM {attributes} a WHERE a.session_id = ANY (ids);
    WITH l AS (DELETE FROM {locks} l WHERE l.session_id = ANY (ids) RETURNING l.resource, l.token)
    SELECT array_agg({lock_ended(l.resource, l.token)}) INTO ended FROM l;
    IF ended IS NOT NULL THEN
        PERFORM {announce}(NULL::text, {plain}::text, ended, {locks_a_payload});
    END IF;
END $pgsession$;
