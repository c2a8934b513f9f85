-- Deletes the least recently used sessions of full users, each user's excess. A session that somebody writes to at this moment
-- is not the least recently used one: it is skipped, and a user who has too few others is returned as short. Nobody waits
-- for one here, for that would be with the bucket locked, in which other users' logins are.
CREATE FUNCTION {evict}(moment timestamptz, full_users text[], excess bigint[],
    arrivals uuid[], accessed_ids uuid[], accessed_at bigint[], OUT short_users text[], OUT evicted uuid[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    WITH t AS MATERIALIZED (
        SELECT t.id, {timestamp(max(t.us))} AS at FROM unnest(accessed_ids, accessed_at) t(id, us) GROUP BY 1
    ), v AS MATERIALIZED (
        SELECT n.user_id, n.excess, l.id FROM unnest(full_users, excess) n(user_id, excess) LEFT JOIN LATERAL (
            SELECT s.id FROM {sessions} s LEFT JOIN t ON t.id = s.id
            WHERE s.user_id = n.user_id AND s.expires_at > moment AND s.id <> ALL (arrivals)
            AND (greatest(s.last_accessed, t.at) > moment - s.inactivity) IS NOT FALSE
            ORDER BY greatest(s.last_accessed, t.at), s.id LIMIT n.excess FOR UPDATE OF s SKIP LOCKED) l ON true
    ), w AS (
        SELECT v.user_id, max(v.excess) > count(v.id) AS short, array_agg(v.id) AS ids FROM v GROUP BY v.user_id
    )
    SELECT (SELECT array_agg(w.user_id) FROM w WHERE w.short),
           (SELECT array_agg(x) FROM w CROSS JOIN unnest(w.ids) x WHERE NOT w.short)
    INTO short_users, evicted;
    PERFORM {end_sessions}(evicted);
END $pgsession$;
