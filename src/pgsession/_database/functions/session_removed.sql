-- What belonged to a session that plain SQL has deleted goes, too. A row trigger: apply workers of logical replication fire no
-- others, and no transition table is kept, for which our own deletes would pay.
CREATE FUNCTION {session_removed}() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $pgsession$
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    PERFORM {end_belongings}(ARRAY[OLD.id]);
    PERFORM set_config('pgsession.own', '', true);
    RETURN NULL;
END $pgsession$;
