-- The next ids of a walk. Three statements, so that each has a plan of its own.
CREATE FUNCTION {page}(scope text, subject text, keep uuid, after uuid, size integer) RETURNS uuid[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $pgsession$
BEGIN
    CASE scope
        WHEN 'user' THEN
            RETURN (SELECT array_agg(p.id) FROM (SELECT s.id FROM {sessions} s WHERE s.user_id = subject AND s.id > after
                    AND s.id IS DISTINCT FROM keep ORDER BY s.id LIMIT size) p);
        WHEN 'group' THEN
            RETURN (SELECT array_agg(p.id) FROM (SELECT s.id FROM {sessions} s WHERE s.group_id = subject AND s.id > after
                    ORDER BY s.id LIMIT size) p);
        WHEN 'all' THEN
            RETURN (SELECT array_agg(p.id) FROM (SELECT s.id FROM {sessions} s WHERE s.id > after ORDER BY s.id LIMIT size) p);
    END CASE;
END $pgsession$;
