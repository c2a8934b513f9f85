-- Lets the lease of a held lock end later, never earlier. until is null where it is not held any more.
CREATE FUNCTION {renew}(name text, holder uuid, lease bigint, OUT until bigint, OUT now bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $pgsession$
DECLARE
    moment timestamptz;
    ends timestamptz;
BEGIN
    SELECT l.expires_at INTO ends FROM {locks} l WHERE l.resource = name AND l.owner = holder FOR NO KEY UPDATE;
    moment := clock_timestamp();
    IF ends > moment THEN
        ends := greatest(ends, moment + lease * interval '1 microsecond');
        UPDATE {locks} l SET expires_at = ends WHERE l.resource = name;
        until := {us(ends)};
    END IF;
    now := {us(moment)};
END $pgsession$;
