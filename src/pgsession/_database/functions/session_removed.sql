-- What belonged to a session that plain SQL has deleted goes, too. A row trigger: apply workers of logical replication fire no
-- others, and no transition table is kept, for which our own deletes would pay.
CREATE FUNCTION {session_removed}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET trace_notify = off SET plan_cache_mode = force_generic_plan AS $pgsession$
DECLARE
    noted text := set_config('pgsession.own', 'on', true);
    ended text[];
BEGIN
    IF TG_RELID <> {sessions_oid} THEN
        {refuse_table};
    END IF;
    DELETE FROM {attributes} a WHERE a.session_id = OLD.id;
    WITH l AS (DELETE FROM {locks} l WHERE l.session_id = OLD.id RETURNING l.resource, l.token)
    SELECT array_agg({lock_ended(l.resource, l.token)}) INTO ended FROM l;
    IF ended IS NOT NULL THEN
        PERFORM {announce}(NULL::text, {plain}::text, ended, {locks_a_payload});
    END IF;
    noted := set_config('pgsession.own', '', true);
    RETURN NULL;
END $pgsession$;
