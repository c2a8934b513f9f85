-- Asks every node to acknowledge what has been committed so far: commits that notify arrive in their order, so who has heard this has
-- heard all of that. Tells whom to wait for, and for how many microseconds at most: a node that enters later reads what has been
-- committed; one that is silent for as long as the cleanup waits serves nothing. Whoever was there before this incarnation, of which
-- it tells the age, is in no table.
CREATE FUNCTION {ask_nodes}(name text,
    OUT incarnation text, OUT xid text, OUT age bigint, OUT serving text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    PERFORM pg_notify({channel}, {sender(name)} || {awaited});
    xid := pg_current_xact_id()::text;
    SELECT i.incarnation::text, {us(clock_timestamp() - i.began_at)} INTO incarnation, age FROM {incarnation} i;
    SELECT coalesce(json_object_agg(n.node, {us(n.serves_for)}), '{{}}') INTO serving
    FROM {nodes} n WHERE n.registered_at + n.serves_for >= clock_timestamp() - {silence};
END $pgsession$;
