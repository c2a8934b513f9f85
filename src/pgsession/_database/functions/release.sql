-- Gives a lock back, which is announced. in_time is null where it was not held.
CREATE FUNCTION {release}(node text, name text, holder uuid, OUT in_time boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $pgsession$
DECLARE
    noted text := set_config('pgsession.own', 'on', true);  -- not PERFORM, which sets up a query
    ends timestamptz;
    events text;
    done boolean;
BEGIN
    DELETE FROM {locks} l WHERE l.resource = name AND l.owner = holder RETURNING l.expires_at, {channel} INTO ends, events;
    IF FOUND THEN
        in_time := ends > clock_timestamp();
        done := pg_notify(events, {sender(node)} || ' l' || {hex_text(name)}) IS NULL;
    END IF;
END $pgsession$;
