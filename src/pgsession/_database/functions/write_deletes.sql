-- Ends of sessions. What has expired is removed and announced as well, but answered as gone.
CREATE FUNCTION {write_deletes}(events text, node text, waiting boolean, {delete_parameters}) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    held uuid[] := {hold}(deletes, 'all'::text, NULL::text, waiting);
    moment timestamptz := clock_timestamp();
    answer text;
BEGIN
    SELECT string_agg(concat('[', k.i, CASE WHEN s.held IS NULL THEN ',"gone"]' WHEN NOT s.held THEN ',"locked"]'
                                            WHEN s.live THEN s.ok ELSE ',"gone"]' END), ',')
    INTO answer
    FROM unnest(deletes) WITH ORDINALITY k(id, i)
    LEFT JOIN LATERAL (
        SELECT (s.id = ANY (held)) IS TRUE AS held, {live(s, moment)} AS live,
               concat(',"ok",', coalesce(to_json(s.user_id)::text, 'null'), ',', coalesce(to_json(s.group_id)::text, 'null'), ']') AS ok
        FROM {sessions} s WHERE s.id = k.id OFFSET 0
    ) s ON true;
    IF held IS NOT NULL THEN
        PERFORM {end_sessions}(held);
        PERFORM {announce}(events, node, ARRAY(SELECT {deleted(x.id)} FROM unnest(held) x(id)), {sessions_a_payload});
    END IF;
    RETURN concat('"delete":[', answer, ']');
END $pgsession$;
