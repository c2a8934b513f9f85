-- By id, in as many payloads as it takes: an event about a user, a group or everything ends every lease of every node, and each of
-- their writes would be followed by a read. Where all go it is one about everything.
CREATE FUNCTION {announce_many}(node text, everything boolean, kind text, ids uuid[], versions bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    IF everything AND cardinality(ids) > {sessions_a_payload} THEN
        PERFORM pg_notify({channel}, {sender(node)} || ' A');
    ELSIF ids IS NOT NULL THEN
        PERFORM {announce}(NULL::text, node, (SELECT array_agg(concat(kind, {hex(x.id)}, ':' || x.version))
                                  FROM unnest(ids, versions) x(id, version)), {sessions_a_payload});
    END IF;
END $pgsession$;
