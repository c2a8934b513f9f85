-- One payload: by id while they fit, else by what they have in common.
CREATE FUNCTION {announce_many}(node text, scope text, subject text, kind text, ids uuid[], versions bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    IF cardinality(ids) <= 140 THEN
        PERFORM {announce}(node, (SELECT array_agg(concat(kind, {hex(x.id)}, ':' || x.version))
                                  FROM unnest(ids, versions) x(id, version)), 140);
    ELSIF cardinality(ids) > 140 THEN
        PERFORM pg_notify({channel}, node || CASE scope WHEN 'user' THEN ' U' WHEN 'group' THEN ' G' ELSE ' A' END
                          || CASE scope WHEN 'all' THEN '' ELSE {hex_text(subject)} END);
    END IF;
END $pgsession$;
