-- Gives a lock back, which is announced. in_time is null where it was not held.
CREATE FUNCTION {release}(node text, name text, holder uuid, OUT in_time boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    ends timestamptz;
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    DELETE FROM {locks} l WHERE l.resource = name AND l.owner = holder RETURNING l.expires_at INTO ends;
    IF FOUND THEN
        in_time := ends > clock_timestamp();
        PERFORM pg_notify({channel}, {sender(node)} || ' l' || {hex_text(name)});
    END IF;
END $pgsession$;
