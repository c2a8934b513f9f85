-- What creates with chosen ids are answered for a session that has theirs: "exists", or where they ask for it and it is their
-- user's, the session. What has expired counts as absent, and who replaces asks for nobody.
CREATE FUNCTION {find_existing}(ids uuid[], user_ids text[], if_exists text[], OUT existing bigint[], OUT answers text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    moment timestamptz := clock_timestamp();
BEGIN
    SELECT array_agg(f.i), string_agg(concat('[', f.i, ',', coalesce('"same",' || to_json(f.snapshot), '"exists"'), ']'), ',')
    INTO existing, answers
    FROM (
        SELECT k.i, CASE WHEN k.if_exists = 'return' AND s.user_id IS NOT DISTINCT FROM nullif(k.user_id, '')
                         AND {live(s, moment)} THEN {snapshot(s, moment)} END AS snapshot
        FROM unnest(ids, user_ids, if_exists) WITH ORDINALITY k(id, user_id, if_exists, i)
        CROSS JOIN LATERAL (SELECT s.* FROM {sessions} s WHERE s.id = k.id OFFSET 0) s
        WHERE k.if_exists <> 'replace' AND s.expires_at > moment
    ) f;
END $pgsession$;
