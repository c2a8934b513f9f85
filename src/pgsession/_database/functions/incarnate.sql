-- The incarnation of these tables: a new one, with a secret of its own, where the row is gone, was made before the last start of
-- the server, or is a copy. started is true for whoever made it.
CREATE FUNCTION {incarnate}(OUT incarnation text, OUT started boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
#variable_conflict use_column
DECLARE
    own text := coalesce(current_setting('pgsession.own', true), '');
BEGIN
    started := false;
    SELECT i.incarnation::text INTO incarnation FROM {incarnation} i JOIN pg_control_system() c USING (system_identifier)
    WHERE {valid(i)};
    IF NOT FOUND THEN
        PERFORM set_config('pgsession.own', 'on', true);
        INSERT INTO {incarnation} AS i (incarnation, system_identifier, started_at, place, secret)
        SELECT gen_random_uuid(), c.system_identifier, pg_postmaster_start_time(), {incarnation_place}, {random_secret}
        FROM pg_control_system() c
        ON CONFLICT (single) DO UPDATE SET incarnation = excluded.incarnation, system_identifier = excluded.system_identifier,
            started_at = excluded.started_at, place = excluded.place, secret = excluded.secret, began_at = excluded.began_at
        WHERE (i.system_identifier, i.started_at, i.place)
            IS DISTINCT FROM (excluded.system_identifier, excluded.started_at, excluded.place);
        started := FOUND;
        PERFORM set_config('pgsession.own', own, true);
        SELECT i.incarnation::text INTO incarnation FROM {incarnation} i;
    END IF;
END $pgsession$;
