-- Removes the attributes that the updates which were written ask to remove.
CREATE FUNCTION {remove_attributes}(ids uuid[], written bigint[], drop_of integer[], drop_keys text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    DELETE FROM {attributes} WHERE ctid = ANY (ARRAY(
        SELECT p.place FROM unnest(drop_of, drop_keys) d(i, key)
        CROSS JOIN LATERAL (
            SELECT a.ctid AS place FROM {attributes} a WHERE a.session_id = ids[d.i] AND a.key = d.key OFFSET 0) p
        WHERE d.i = ANY (written)));
END $pgsession$;
