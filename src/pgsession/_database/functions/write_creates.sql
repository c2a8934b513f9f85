-- New sessions, once there is room for them. Not announced, unless their ids were chosen: nobody can know them yet.
CREATE FUNCTION {write_creates}(events text, node text, waiting boolean, most_sessions integer, evicts boolean,
    {create_parameters}, {access_parameters}) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    moment timestamptz;
    first bigint;  -- version: an id's versions begin at the clock, above all that an earlier row of it had
    too_many bigint[];
    overtaken bigint[];
    locked bigint[];
    evicted text[];
    turned_away text;
    existing bigint[]; versions bigint[]; replaced text;  -- where the ids were chosen
BEGIN
    IF new_if_exists IS NOT NULL THEN
        SELECT p.existing, p.answers, p.too_many, p.locked, p.evicted INTO existing, turned_away, too_many, locked, evicted
        FROM {prepare_creates}(waiting, most_sessions, evicts, new_ids, new_user_ids, new_if_exists, {access_arguments}) p;
    ELSIF most_sessions > 0 THEN
        SELECT r.too_many, r.overtaken, r.locked, r.evicted INTO too_many, overtaken, locked, evicted
        FROM {make_room}(waiting, most_sessions, evicts, new_ids, new_user_ids, accessed_ids, accessed_at) r;
    END IF;
    IF overtaken IS NOT NULL THEN
        evicted := evicted || ARRAY(SELECT {hex(new_ids[o.i])} FROM unnest(overtaken) o(i)
                                    WHERE o.i <> ALL (coalesce(locked, '{{}}')));
    END IF;
    moment := clock_timestamp();
    first := {us(moment)};
    IF new_if_exists IS NOT NULL THEN
        SELECT w.versions, w.replaced INTO versions, replaced
        FROM {make_way}(events, node, moment, new_ids, existing || too_many || locked) w;
    END IF;
    WITH c AS MATERIALIZED (
        SELECT u.*, coalesce(versions[u.i], first) AS version
        FROM unnest(new_ids, new_generations, new_user_ids, new_group_ids, new_expiries, new_inactivities)
            WITH ORDINALITY u(id, generation, user_id, group_id, expiry, inactivity, i)
        WHERE u.i <> ALL (coalesce(existing || too_many || locked || overtaken, '{{}}'))
    ), s AS (
        INSERT INTO {sessions} (id, version, generation, owner_since, created_at, updated_at, last_accessed, expires_at,
                                inactivity, user_id, group_id)
        SELECT c.id, c.version, c.generation, c.version, moment, moment, moment, {timestamp(c.expiry)},
               {interval_if_any(c.inactivity)}, nullif(c.user_id, ''), {present(c.group_id)} FROM c
    )
    INSERT INTO {attributes} (session_id, version, expires_at, key, value)
    SELECT x.id, x.version, {timestamp_if_any(new_attribute_expiries[x.n])}, new_keys[x.n], new_values[x.n]::json
    FROM (SELECT c.id, c.version, generate_series(coalesce(new_ends[c.i - 1], 0) + 1, new_ends[c.i]) AS n FROM c) x;
    IF too_many IS NOT NULL OR locked IS NOT NULL THEN
        SELECT concat_ws(',', turned_away, string_agg(concat('[', x.i, CASE WHEN x.i = ANY (too_many) THEN ',"too_many"]' ELSE ',"locked"]' END), ','))
        INTO turned_away FROM unnest(too_many || locked) x(i);
    END IF;
    IF evicted IS NOT NULL THEN
        PERFORM {announce}(events, node, ARRAY(SELECT 'd' || x FROM unnest(evicted) x), {sessions_a_payload});
    END IF;
    RETURN concat('"created_at":', first, ',"turned_away":[', turned_away,
                  '],"evicted":', coalesce(to_json(evicted)::text, '[]'), ',"replaced":[', replaced, ']');
END $pgsession$;
