-- The attributes whose version is not the one that a checking update is based on, as {{number of the update: what its answer says}}. An
-- expired attribute counts as absent, or as its own version. Of another incarnation's versions none is the row's.
CREATE FUNCTION {find_conflicts}(ids uuid[], incarnations uuid[], flags integer[], set_ends integer[], set_keys text[], set_bases bigint[],
    drop_of integer[], drop_keys text[], drop_bases bigint[]) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    moment timestamptz := clock_timestamp();
    here uuid := {current_incarnation};
BEGIN
    RETURN (
        SELECT coalesce(jsonb_object_agg(w.i, w.keys), '{{}}') FROM (
            SELECT k.i, '"attributes",' || json_agg(x.key)::text AS keys
            FROM unnest(ids, flags) WITH ORDINALITY k(id, flags, i)
            CROSS JOIN LATERAL (
                SELECT set_keys[n] AS key, set_bases[n] AS base
                FROM generate_series(coalesce(set_ends[k.i - 1], 0) + 1, set_ends[k.i]) n
                UNION ALL SELECT d.key, d.base FROM unnest(drop_of, drop_keys, drop_bases) d(i, key, base) WHERE d.i = k.i) x
            LEFT JOIN LATERAL (SELECT a.version, a.expires_at FROM {attributes} a
                               WHERE a.session_id = k.id AND a.key = x.key OFFSET 0) a ON true
            WHERE k.flags & {check_attributes} <> 0 AND ({incarnation_of(k.i)} IS DISTINCT FROM here
                OR x.base <> coalesce(a.version, 0) AND NOT (x.base = 0 AND a.expires_at <= moment IS TRUE))
            GROUP BY k.i) w);
END $pgsession$;
