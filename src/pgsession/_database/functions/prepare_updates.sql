-- Locks what updates need to have locked before they are written, in the order of all of our transactions: buckets of users
-- first, then the rows of sessions. Checks what has to be checked under these locks, and makes room where a user is bound: which
-- updates are barred, as {{number of the update: what its answer says}}; which sessions were evicted, in hex.
CREATE FUNCTION {prepare_updates}(waiting boolean, most_sessions integer, evicts boolean,
    {update_parameters}, {access_parameters},
    OUT held uuid[], OUT barred jsonb, OUT evicted text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    here uuid := {current_incarnation};
    moment timestamptz;
    arriving bigint[]; arrivals uuid[]; arriving_users text[];
    busy bigint[]; later bigint[]; too_many bigint[];
BEGIN
    IF users IS NOT NULL AND most_sessions > 0 THEN
        busy := {lock_buckets}(users, waiting);
    END IF;
    held := {lock_sessions}(ARRAY(SELECT k.id FROM unnest(ids) WITH ORDINALITY k(id, i)
                                  WHERE k.i <> ALL (coalesce(busy, '{{}}'))), waiting);
    barred := {find_conflicts}(ids, incarnations, flags, set_ends, set_keys, set_bases, drop_of, drop_keys, drop_bases);
    IF generations IS NULL THEN
        RETURN;
    END IF;
    -- Whoever binds a user has to know the current token.
    SELECT barred || coalesce(jsonb_object_agg(k.i, concat('"session",', s.version)), '{{}}') INTO barred
    FROM unnest(ids, flags, base_generations) WITH ORDINALITY k(id, flags, base, i) JOIN {sessions} s ON s.id = k.id
    WHERE s.id = ANY (ids) AND k.flags & {change_user} <> 0 AND k.base <> s.generation;
    IF users IS NULL OR most_sessions = 0 THEN
        RETURN;
    END IF;
    moment := clock_timestamp();
    SELECT array_agg(k.i ORDER BY k.i), array_agg(k.id ORDER BY k.i), array_agg(k.user_id ORDER BY k.i)
    INTO arriving, arrivals, arriving_users
    FROM unnest(ids, bases, owners_since, flags, users) WITH ORDINALITY k(id, base, owned_since, flags, user_id, i) JOIN {sessions} s ON s.id = k.id
    -- Who has it already takes no more room.
    WHERE s.id = ANY (held) AND k.user_id <> '' AND s.user_id IS DISTINCT FROM k.user_id AND NOT barred ? k.i::text AND {live(s, moment)}
    AND k.owned_since = s.owner_since
    AND NOT (k.flags & {check_session} <> 0 AND ({incarnation_of(k.i)} IS DISTINCT FROM here OR k.base <> s.version));
    IF arriving IS NOT NULL THEN
        SELECT r.too_many, r.overtaken || r.locked, r.evicted INTO too_many, later, evicted
        FROM {make_room}(waiting, most_sessions, evicts, arrivals, arriving_users, accessed_ids, accessed_at) r;
        -- A session that a later login of the batch would evict waits for its own batch.
        held := ARRAY(SELECT h.id FROM unnest(held) h(id) WHERE h.id <> ALL (ARRAY(SELECT arrivals[l] FROM unnest(later) l)));
        SELECT barred || coalesce(jsonb_object_agg(arriving[t], '"too_many"'::text), '{{}}') INTO barred FROM unnest(too_many) t;
    END IF;
END $pgsession$;
