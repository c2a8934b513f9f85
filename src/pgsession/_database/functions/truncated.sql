-- Keeps the tables together after a TRUNCATE of the one that TG_ARGV names; before one of the locks it tells their holders.
CREATE FUNCTION {truncated}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET trace_notify = off SET plan_cache_mode = force_generic_plan AS $pgsession$
DECLARE
    own text := coalesce(current_setting('pgsession.own', true), '');
    moment timestamptz := clock_timestamp();
    ended text[];
BEGIN
    IF TG_RELID NOT IN ({sessions_oid}, {attributes_oid}, {locks_oid}) THEN
        {refuse_table};
    END IF;
    IF TG_ARGV[0] = 'locks' THEN
        PERFORM {announce}(NULL::text, {plain}::text, ARRAY(SELECT {lock_ended(l.resource, l.token)} FROM {locks} l), {locks_a_payload});
        RETURN NULL;
    END IF;
    PERFORM set_config('pgsession.own', 'on', true);
    IF TG_ARGV[0] = 'sessions' THEN
        BEGIN
            TRUNCATE {attributes};
        EXCEPTION WHEN object_in_use THEN
            DELETE FROM {attributes};  -- truncated by the same statement, or open in a cursor
        END;
        WITH l AS (DELETE FROM {locks} WHERE session_id IS NOT NULL RETURNING resource, token)
        SELECT array_agg({lock_ended(l.resource, l.token)}) INTO ended FROM l;
        PERFORM {announce}(NULL::text, {plain}::text, ended, {locks_a_payload});
    ELSE
        UPDATE {sessions} SET version = version + 1, updated_at = moment;
    END IF;
    PERFORM pg_notify({channel}, {plain_sender} || ' A');
    PERFORM set_config('pgsession.own', own, true);
    RETURN NULL;
END $pgsession$;
