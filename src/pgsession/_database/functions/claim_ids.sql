-- Sees to it that nobody else makes or changes the sessions of these ids until the transaction ends; returns those for which that
-- succeeded. A row that is there and goes is locked. For an id of which there is none a row is inserted, and removed at once: whoever
-- inserts the same one waits until it is known whether we do, as we do here for others, in the order of the ids.
CREATE FUNCTION {claim_ids}(waiting boolean, ids uuid[], if_exists text[]) RETURNS uuid[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    moment timestamptz := clock_timestamp();
    going uuid[] := ARRAY(SELECT k.id FROM unnest(ids, if_exists) k(id, if_exists)
                          CROSS JOIN LATERAL (SELECT s.expires_at FROM {sessions} s WHERE s.id = k.id OFFSET 0) s
                          WHERE k.if_exists = 'replace' OR s.expires_at <= moment);
    absent uuid[] := ARRAY(SELECT k.id FROM unnest(ids) k(id)
                           WHERE NOT EXISTS (SELECT FROM {sessions} s WHERE s.id = k.id OFFSET 0));
BEGIN
    going := coalesce({hold}(going, 'all'::text, NULL::text, waiting), '{{}}');
    WITH p AS (
        INSERT INTO {sessions} (id, version, owner_since, expires_at)
        SELECT a.id, 0, 0, moment FROM unnest(absent) a(id) ORDER BY a.id
        ON CONFLICT DO NOTHING RETURNING id
    )
    SELECT array_agg(p.id) INTO absent FROM p;
    DELETE FROM {sessions} s WHERE s.id = ANY (absent);
    RETURN going || absent;
END $pgsession$;
