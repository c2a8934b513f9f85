-- The change of one session by itself, as write_updates makes it, where nothing is in its way: null where something is, or where it
-- is not as simple as that. What one statement for many has to set up costs more than a change of one does.
CREATE FUNCTION {write_update}(node text, {update_parameters}) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    usual boolean := nullif(expiries[1], {none}) IS NULL AND flags[1] & ({change_group} | {change_inactivity}) = 0;
    new_group text;
    before record;
    moment timestamptz; known boolean; verdict text; raised bigint; snapshots text; done boolean;
BEGIN
    SELECT s.version, s.owner_since, s.expires_at, s.inactivity, s.last_accessed, s.group_id,
           (SELECT ARRAY[i.incarnation::text, {channel_name(i.secret, 'events'::bytea)}] FROM {incarnation} i WHERE {valid(i)}) AS here
    INTO before FROM {sessions} s WHERE s.id = ids[1] FOR NO KEY UPDATE SKIP LOCKED;
    moment := clock_timestamp();  -- later than what was read
    known := (incarnations[1]::text = before.here[1]) IS TRUE;
    verdict := {verdict(before, moment, owners_since[1], flags[1], bases[1], known)};
    IF verdict IS NOT NULL OR before.here IS NULL OR before.version IS NULL THEN
        RETURN NULL;
    END IF;
    IF usual THEN
        UPDATE {sessions} s SET {changed_now(s, moment)} WHERE s.id = ids[1] RETURNING s.version INTO raised;
    ELSE
        new_group := {present(groups[1])};
        UPDATE {sessions} s SET {changes(s, moment, flags[1], expiries[1], inactivities[1], new_group)}
        WHERE s.id = ids[1] RETURNING s.version INTO raised;
    END IF;
    IF raised IS NULL THEN
        RETURN NULL;  -- a trigger of the owner's keeps it as it is
    END IF;
    IF set_ends[1] > 0 THEN
        INSERT INTO {attributes} AS a (session_id, version, expires_at, key, value)
        SELECT ids[1], raised, {timestamp_if_any(set_expiries[x.n])}, set_keys[x.n], set_values[x.n]::json
        FROM (SELECT generate_series(1, set_ends[1]) AS n) x
        {or_replace};
    END IF;
    IF NOT known OR bases[1] <> before.version THEN
        snapshots := {read_snapshots}(ids, ARRAY[1::bigint], moment);
    END IF;
    IF {announces(before, flags[1], new_group)} THEN
        done := pg_notify(before.here[2], {sender(node)} || ' ' || {changed(ids[1], raised)}) IS NULL;
    END IF;
    RETURN concat('"incarnation":', coalesce('"' || before.here[1] || '"', 'null'),
        ',"written":[1],"versions":[', raised, '],"updated_at":', {us(moment)}, ',"snapshots":[', snapshots, '],"refused":[],"displaced":[]');
END $pgsession$;
