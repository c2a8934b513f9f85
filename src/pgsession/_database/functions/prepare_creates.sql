-- Decides which creates with chosen ids are done, by their numbers: who is answered by the session that is there, for whom there is
-- no room, who has to be tried again. Nobody else makes or changes sessions of the other ids until the transaction ends. In the order of
-- all of our transactions: buckets of users first, then rows of sessions. Room is made only for what is known to be created. One
-- that a later one of the batch would evict is tried again.
CREATE FUNCTION {prepare_creates}(waiting boolean, most_sessions integer, evicts boolean,
    ids uuid[], user_ids text[], if_exists text[], {access_parameters},
    OUT existing bigint[], OUT answers text, OUT too_many bigint[], OUT locked bigint[], OUT evicted text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    moment timestamptz;
    claimed uuid[];
    arriving text[];
    later bigint[];
BEGIN
    -- What is there, and stays, is found without a lock.
    SELECT f.existing INTO existing FROM {find_existing}(ids, user_ids, if_exists) f;
    IF most_sessions > 0 THEN
        later := {lock_buckets}(ARRAY(SELECT CASE WHEN u.i = ANY (existing) THEN '' ELSE u.user_id END
                                      FROM unnest(user_ids) WITH ORDINALITY u(user_id, i) ORDER BY u.i), waiting);
    END IF;
    SELECT {claim_ids}(waiting, array_agg(k.id), array_agg(k.if_exists)) INTO claimed
    FROM unnest(ids, if_exists) WITH ORDINALITY k(id, if_exists, i) WHERE k.i <> ALL (coalesce(existing || later, '{{}}'));
    -- Once more: somebody else may have been faster. What is neither found nor claimed then is tried again.
    SELECT f.existing, f.answers INTO existing, answers FROM {find_existing}(ids, user_ids, if_exists) f;
    locked := ARRAY(SELECT k.i FROM unnest(ids) WITH ORDINALITY k(id, i)
                    WHERE k.i <> ALL (coalesce(existing, '{{}}')) AND (k.id = ANY (claimed)) IS NOT TRUE);
    IF most_sessions > 0 THEN
        moment := clock_timestamp();
        -- Who replaces a session of the same user takes no more room.
        arriving := ARRAY(SELECT CASE WHEN k.i = ANY (existing || locked) OR s.taken THEN '' ELSE k.user_id END
                          FROM unnest(ids, user_ids) WITH ORDINALITY k(id, user_id, i) LEFT JOIN LATERAL (
                              SELECT s.user_id = k.user_id AND {live(s, moment)} AS taken
                              FROM {sessions} s WHERE s.id = k.id OFFSET 0) s ON true ORDER BY k.i);
        SELECT r.too_many, r.overtaken || r.locked, r.evicted INTO too_many, later, evicted
        FROM {make_room}(waiting, most_sessions, evicts, ids, arriving, accessed_ids, accessed_at) r;
        locked := locked || later;
    END IF;
END $pgsession$;
