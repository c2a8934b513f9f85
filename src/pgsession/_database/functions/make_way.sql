-- Ends the sessions in whose places others are created, and tells every node of the new ones: who knows the ids may have looked for
-- them. Returns the versions of the new ones by their numbers, each above that of the session before it; and which these were, as
-- the answer says it. Skipped are those that are not created.
CREATE FUNCTION {make_way}(events text, node text, moment timestamptz, ids uuid[], skipped bigint[],
    OUT versions bigint[], OUT replaced text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    going uuid[];
    announced text[];
BEGIN
    WITH n AS MATERIALIZED (
        SELECT k.id, k.i, k.i <> ALL (coalesce(skipped, '{{}}')) AS created, greatest(s.version + 1, {us(moment)}) AS version,
               s.id AS before, concat(CASE WHEN s.expires_at > moment THEN '"replaced",' ELSE '"expired",' END,
                                      coalesce(to_json(s.user_id)::text, 'null'), ',', coalesce(to_json(s.group_id)::text, 'null')) AS whose
        FROM unnest(ids) WITH ORDINALITY k(id, i)
        LEFT JOIN LATERAL (SELECT s.* FROM {sessions} s WHERE s.id = k.id OFFSET 0) s ON true
    )
    SELECT array_agg(n.version ORDER BY n.i),
           array_agg({changed(n.id, n.version)}) FILTER (WHERE n.created),
           array_agg(n.before) FILTER (WHERE n.created AND n.before IS NOT NULL),
           string_agg(concat('[', n.i, ',', n.version, ',', n.whose, ']'), ',') FILTER (WHERE n.created AND n.before IS NOT NULL)
    INTO versions, announced, going, replaced FROM n;
    PERFORM {end_sessions}(going);
    PERFORM {announce}(events, node, announced, {sessions_a_payload});
END $pgsession$;
