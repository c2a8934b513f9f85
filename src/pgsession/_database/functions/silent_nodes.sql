-- Which of these nodes have not acknowledged what this transaction asked for; one that is registered no more serves nothing.
CREATE FUNCTION {silent_nodes}(asked json, awaited xid8, OUT incarnation text, OUT silent text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    SELECT i.incarnation::text INTO incarnation FROM {incarnation} i WHERE {valid(i)};
    SELECT coalesce(json_agg(n.node), '[]') INTO silent
    FROM json_array_elements_text(asked) a(node) JOIN {nodes} n ON n.node = a.node AND n.acknowledged < awaited;
END $pgsession$;
