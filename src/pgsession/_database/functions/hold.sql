-- Locks those of a page that still belong to it, to delete or change them; null: none.
CREATE FUNCTION {hold}(page uuid[], scope text, subject text, waiting boolean) RETURNS uuid[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
AS $pgsession$
BEGIN
    IF page IS NULL THEN
        RETURN NULL;
    ELSIF waiting THEN
        RETURN (SELECT array_agg(l.id) FROM (SELECT s.id FROM {sessions} s WHERE s.id = ANY (page)
                AND CASE scope WHEN 'user' THEN s.user_id = subject WHEN 'group' THEN s.group_id = subject ELSE true END
                ORDER BY s.id FOR UPDATE) l);
    END IF;
    RETURN (SELECT array_agg(l.id) FROM (SELECT s.id FROM {sessions} s WHERE s.id = ANY (page)
            AND CASE scope WHEN 'user' THEN s.user_id = subject WHEN 'group' THEN s.group_id = subject ELSE true END
            ORDER BY s.id FOR UPDATE SKIP LOCKED) l);
END $pgsession$;
