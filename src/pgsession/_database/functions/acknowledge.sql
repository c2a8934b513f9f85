-- Notes that a node has applied all that was committed before a transaction which asked for this; not where that was one of another
-- incarnation, whose ids say nothing here.
CREATE FUNCTION {acknowledge}(name text, applied xid8, of_incarnation text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    UPDATE {nodes} n SET acknowledged = applied WHERE n.node = name AND n.acknowledged < applied
    AND EXISTS (SELECT FROM {incarnation} i WHERE i.incarnation::text = of_incarnation AND {valid(i)});
END $pgsession$;
