-- Sees to it that a batch of arrivals, new sessions or such that are given to a user who does not have them, leaves no user with
-- more than most_sessions: which of the arrivals are too many, which are evicted by later ones of the same batch, which cannot be
-- decided at this moment; and the sessions that had to go, in hex, of which no arrival is one. An arrival that leaves another user
-- is that user's until it has left: it may be turned away. The user '' is nobody, who has any number of sessions.
CREATE FUNCTION {make_room}(waiting boolean, most_sessions integer, evicts boolean,
    arrivals uuid[], users text[], accessed_ids uuid[], accessed_at bigint[],
    OUT too_many bigint[], OUT overtaken bigint[], OUT locked bigint[], OUT evicted text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    moment timestamptz;
    full_users text[];
    excess bigint[];
    short_users text[];
    gone uuid[];
BEGIN
    -- One login of a user at a time, or two would both find room; the count is taken by a later statement (READ COMMITTED).
    locked := {lock_buckets}(users, waiting);
    moment := clock_timestamp();
    WITH c AS MATERIALIZED (
        SELECT u.i, u.user_id, row_number() OVER w AS arrival, count(*) OVER (PARTITION BY u.user_id) AS arriving
        FROM unnest(users) WITH ORDINALITY u(user_id, i)
        WHERE u.user_id <> '' AND u.i <> ALL (coalesce(locked, '{{}}'))
        WINDOW w AS (PARTITION BY u.user_id ORDER BY u.i)
    ), n AS MATERIALIZED (
        SELECT u.user_id, least(u.arriving, most_sessions) AS staying, l.living
        FROM (SELECT c.user_id, c.arriving FROM c WHERE c.arrival = 1) u CROSS JOIN LATERAL (
            SELECT count(*) AS living FROM {sessions} s
            WHERE s.user_id = u.user_id AND s.expires_at > moment
            AND ((s.last_accessed > moment - s.inactivity) IS NOT FALSE OR EXISTS (
                SELECT FROM unnest(accessed_ids, accessed_at) t(id, us)
                WHERE t.id = s.id AND {timestamp(t.us)} > moment - s.inactivity))
            OFFSET 0) l
    )
    SELECT (SELECT array_agg(c.i) FROM c JOIN n USING (user_id) WHERE NOT evicts AND c.arrival > most_sessions - n.living),
           (SELECT array_agg(c.i) FROM c WHERE evicts AND c.arriving - c.arrival >= most_sessions),
           array_agg(n.user_id) FILTER (WHERE evicts AND n.living + n.staying > most_sessions),
           array_agg(n.living + n.staying - most_sessions) FILTER (WHERE evicts AND n.living + n.staying > most_sessions)
    INTO too_many, overtaken, full_users, excess FROM n;
    IF full_users IS NOT NULL THEN
        SELECT e.short_users, e.evicted INTO short_users, gone
        FROM {evict}(moment, full_users, excess, arrivals, accessed_ids, accessed_at) e;
        IF short_users IS NOT NULL THEN
            locked := locked || ARRAY(SELECT u.i FROM unnest(users) WITH ORDINALITY u(user_id, i)
                                      WHERE u.user_id = ANY (short_users));
        END IF;
    END IF;
    IF gone IS NOT NULL THEN
        evicted := ARRAY(SELECT {hex(x.id)} FROM unnest(gone) x(id));
    END IF;
END $pgsession$;
