-- Takes a free or expired lock. Tokens grow with every hand-over: the token is drawn once the row is locked, or a loser could
-- come back with one older than the winner's. acquired is false while somebody else holds it, and null where session_id names no
-- live session.
CREATE FUNCTION {acquire}(name text, claimant uuid, lease bigint, session uuid,
                          OUT acquired boolean, OUT fence bigint, OUT until bigint, OUT now bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    moment timestamptz := clock_timestamp();
    ends timestamptz;
    made boolean := false;
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    IF session IS NOT NULL THEN
        -- KEY SHARE: a delete of the session waits for this transaction, and then finds the lock to end it.
        PERFORM FROM {sessions} s WHERE s.id = session AND {live(s, moment)} FOR KEY SHARE;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    acquired := false;
    LOOP
        -- A look without a lock, for those who wait by asking again and again.
        SELECT l.expires_at INTO ends FROM {locks} l WHERE l.resource = name;
        IF NOT FOUND THEN
            INSERT INTO {locks} (resource, owner, token, acquired_at, expires_at)
            VALUES (name, claimant, 0, timestamptz 'epoch', timestamptz 'epoch') ON CONFLICT (resource) DO NOTHING;
            made := FOUND;  -- and so locked
            ends := timestamptz 'epoch';
        END IF;
        EXIT WHEN ends > clock_timestamp();
        IF NOT made THEN
            SELECT l.expires_at INTO ends FROM {locks} l WHERE l.resource = name FOR NO KEY UPDATE;
            CONTINUE WHEN NOT FOUND;  -- it was removed meanwhile, and is free
        END IF;
        moment := clock_timestamp();
        IF ends <= moment THEN
            acquired := true;
            fence := nextval({fencing_oid});
            ends := moment + lease * interval '1 microsecond';
            UPDATE {locks} l SET owner = claimant, token = fence, session_id = session, acquired_at = moment, expires_at = ends
            WHERE l.resource = name;
        END IF;
        EXIT;
    END LOOP;
    until := {us(ends)};
    now := {us(clock_timestamp())};
END $pgsession$;
