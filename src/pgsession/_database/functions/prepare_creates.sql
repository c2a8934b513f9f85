-- Decides which creates with chosen ids are done, by their numbers: who is answered by the session that is there, for whom there is
-- no room, who has to be tried again. Nobody else makes or changes sessions of the other ids until the transaction ends. Room is made
-- only for what is known to be created; so the ids come before the buckets of users, for which nobody waits here: that would be
-- with ids claimed, and whoever waits for an id would do so with a bucket locked. One that a later one of the batch would evict is
-- tried again.
CREATE FUNCTION {prepare_creates}(waiting boolean, most_sessions integer, evicts boolean,
    ids uuid[], user_ids text[], if_exists text[], {access_parameters},
    OUT existing bigint[], OUT answers text, OUT too_many bigint[], OUT locked bigint[], OUT evicted text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    moment timestamptz;
    claimed uuid[] := {claim_ids}(waiting, ids, if_exists);
    arriving text[];
    later bigint[];
BEGIN
    SELECT f.existing, f.answers INTO existing, answers FROM {find_existing}(ids, user_ids, if_exists) f;
    -- What is neither there nor claimed has come, or gone, in between.
    locked := ARRAY(SELECT k.i FROM unnest(ids) WITH ORDINALITY k(id, i)
                    WHERE k.i <> ALL (coalesce(existing, '{{}}')) AND k.id <> ALL (claimed));
    IF most_sessions > 0 THEN
        moment := clock_timestamp();
        -- Who replaces a session of the same user takes no more room.
        arriving := ARRAY(SELECT CASE WHEN k.i = ANY (existing || locked) OR s.taken THEN '' ELSE k.user_id END
                          FROM unnest(ids, user_ids) WITH ORDINALITY k(id, user_id, i) LEFT JOIN LATERAL (
                              SELECT s.user_id = k.user_id AND {live(s, moment)} AS taken
                              FROM {sessions} s WHERE s.id = k.id OFFSET 0) s ON true ORDER BY k.i);
        SELECT r.too_many, r.overtaken || r.locked, r.evicted INTO too_many, later, evicted
        FROM {make_room}(false, most_sessions, evicts, ids, arriving, accessed_ids, accessed_at) r;
        locked := locked || later;
    END IF;
END $pgsession$;
