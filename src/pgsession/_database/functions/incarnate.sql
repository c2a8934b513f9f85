-- The incarnation of this server: a new one where the row is gone or was made before the last start. started is true for
-- whoever made it.
CREATE FUNCTION {incarnate}(OUT incarnation text, OUT started boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
#variable_conflict use_column
BEGIN
    started := false;
    SELECT i.incarnation::text INTO incarnation FROM {incarnation} i JOIN pg_control_system() c USING (system_identifier)
    WHERE i.started_at = pg_postmaster_start_time();
    IF NOT FOUND THEN
        PERFORM set_config('pgsession.own', 'on', true);
        INSERT INTO {incarnation} AS i (incarnation, system_identifier, started_at)
        SELECT gen_random_uuid(), c.system_identifier, pg_postmaster_start_time() FROM pg_control_system() c
        ON CONFLICT (single) DO UPDATE SET incarnation = excluded.incarnation, system_identifier = excluded.system_identifier,
            started_at = excluded.started_at
        WHERE (i.system_identifier, i.started_at) IS DISTINCT FROM (excluded.system_identifier, excluded.started_at);
        started := FOUND;
        SELECT i.incarnation::text INTO incarnation FROM {incarnation} i;
    END IF;
END $pgsession$;
