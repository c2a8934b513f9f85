-- One bounded step through the sessions of a user, a group, or all, in id order from the nil uuid on. last is null when
-- there are no more; skipped counts those that somebody else had locked, which a second walk with waiting gets. ended has the
-- ids, 16 bytes each: a node may believe of them that they are another user's or group's. Not where all go.
CREATE FUNCTION {delete_many}(node text, scope text, subject text, keep uuid, after uuid, size integer, waiting boolean,
                              OUT last uuid, OUT deleted bigint, OUT skipped bigint, OUT ended bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    page uuid[];
    held uuid[];
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    page := {page}(scope, subject, keep, after, size);
    last := page[cardinality(page)];
    held := {hold}(page, scope, subject, waiting);
    PERFORM {end_many}(held);
    deleted := coalesce(cardinality(held), 0);
    skipped := coalesce(cardinality(page), 0) - deleted;
    IF scope <> 'all' THEN
        ended := (SELECT string_agg(uuid_send(x.id), '') FROM unnest(held) x(id));
    END IF;
    PERFORM {announce_many}(node, scope = 'all', 'd'::text, held, NULL::bigint[]);
END $pgsession$;
