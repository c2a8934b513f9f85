-- Answers those of the ids that are not done: "locked" where the row is there, else "gone".
CREATE FUNCTION {explain_missing}(ids uuid[], done bigint[]) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    RETURN (
        SELECT string_agg(concat('[', k.i, CASE WHEN s.here THEN ',"locked"]' ELSE ',"gone"]' END), ',')
        FROM unnest(ids) WITH ORDINALITY k(id, i)
        LEFT JOIN LATERAL (SELECT true AS here FROM {sessions} s WHERE s.id = k.id OFFSET 0) s ON true
        WHERE k.i <> ALL (coalesce(done, '{{}}')));
END $pgsession$;
