-- The sessions of these numbers as they are now, each as [number, "snapshot"]. In a string: what only plain SQL can store, and
-- no reader takes, must not make the whole answer unreadable.
CREATE FUNCTION {read_snapshots}(ids uuid[], numbers bigint[], moment timestamptz) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    RETURN (
        SELECT string_agg(concat('[', b.i, ',', to_json({snapshot(s, moment)}), ']'), ',')
        FROM (SELECT DISTINCT unnest(numbers)) b(i) JOIN {sessions} s ON s.id = ids[b.i]);
END $pgsession$;
