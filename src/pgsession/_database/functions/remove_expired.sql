-- Removes so many attributes that expired before a moment; returns how many there were.
CREATE FUNCTION {remove_expired}(moment timestamptz, size integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_mergejoin = off SET jit = off
AS $pgsession$
DECLARE
    sessions uuid[];
    keys text[];
    removed bigint;
BEGIN
    SELECT array_agg(e.session_id), array_agg(e.key) INTO sessions, keys FROM (
        SELECT a.session_id, a.key FROM {attributes} a WHERE a.expires_at <= moment ORDER BY a.expires_at LIMIT size
        FOR UPDATE SKIP LOCKED) e;
    IF keys IS NULL THEN
        RETURN 0;
    END IF;
    -- By the sessions, or a plan made while the table is small would read all of it when it no longer is.
    DELETE FROM {attributes} a USING unnest(sessions, keys) d(session_id, key)
    WHERE a.session_id = ANY (sessions) AND a.session_id = d.session_id AND a.key = d.key;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $pgsession$;
