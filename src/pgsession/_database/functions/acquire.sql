-- Takes a free or expired lock. Tokens grow with every hand-over: one counts only if none was drawn between it and the moment at
-- which the row was locked, or a loser could come back with one older than the winner's. acquired is false while somebody else holds
-- it, and null where session_id names no live session.
CREATE FUNCTION {acquire}(name text, claimant uuid, lease bigint, session uuid,
                          OUT acquired boolean, OUT fence bigint, OUT until bigint, OUT now bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $pgsession$
DECLARE
    noted text := set_config('pgsession.own', 'on', true);  -- not PERFORM, which sets up a query
    moment timestamptz := clock_timestamp();
    ends timestamptz;
    drawn bigint;
    made boolean := false;
BEGIN
    IF session IS NOT NULL THEN
        -- KEY SHARE: a delete of the session waits for this transaction, and then finds the lock to end it.
        PERFORM FROM {sessions} s WHERE s.id = session AND {live(s, moment)} FOR KEY SHARE;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    acquired := false;
    LOOP
        -- A look without a lock, for those who wait by asking again and again: an insertion would wait for whoever renews the lock.
        SELECT l.expires_at INTO ends FROM {locks} l WHERE l.resource = name;
        IF FOUND THEN
            EXIT WHEN ends > clock_timestamp();
        ELSE
            drawn := nextval({fencing_oid});
            moment := clock_timestamp();
            ends := moment + lease * interval '1 microsecond';
            INSERT INTO {locks} (resource, owner, token, session_id, acquired_at, expires_at)
            VALUES (name, claimant, drawn, session, moment, ends) ON CONFLICT (resource) DO NOTHING;
            made := FOUND;  -- and so locked
            IF made THEN
                -- As nearly always: nobody was waited for, and nobody has drawn.
                acquired := pg_sequence_last_value({fencing_oid}) = drawn AND clock_timestamp() < moment + interval '10 milliseconds';
                EXIT WHEN acquired;
            END IF;
        END IF;
        IF NOT made THEN
            SELECT l.expires_at INTO ends FROM {locks} l WHERE l.resource = name FOR NO KEY UPDATE;
            CONTINUE WHEN NOT FOUND;  -- it was removed meanwhile, and is free
        END IF;
        moment := clock_timestamp();
        IF made OR ends <= moment THEN
            acquired := true;
            drawn := nextval({fencing_oid});
            ends := moment + lease * interval '1 microsecond';
            UPDATE {locks} l SET owner = claimant, token = drawn, session_id = session, acquired_at = moment, expires_at = ends
            WHERE l.resource = name;
        END IF;
        EXIT;
    END LOOP;
    IF acquired THEN
        fence := drawn;
    END IF;
    until := {us(ends)};
    now := {us(clock_timestamp())};
END $pgsession$;
