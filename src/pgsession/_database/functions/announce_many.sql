-- One payload: by id while they fit, else by what they have in common.
CREATE FUNCTION {announce_many}(node text, scope text, subject text, kind text, ids uuid[], versions bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    IF cardinality(ids) <= {sessions_a_payload} THEN
        PERFORM {announce}(NULL::text, node, (SELECT array_agg(concat(kind, {hex(x.id)}, ':' || x.version))
                                  FROM unnest(ids, versions) x(id, version)), {sessions_a_payload});
    ELSIF cardinality(ids) > {sessions_a_payload} THEN
        PERFORM pg_notify({channel}, {sender(node)} || CASE scope WHEN 'user' THEN ' U' WHEN 'group' THEN ' G' ELSE ' A' END
                          || CASE scope WHEN 'all' THEN '' ELSE {hex_text(subject)} END);
    END IF;
END $pgsession$;
