-- Group commit: see pgsession._database.statements for the answer, pgsession._database.columns for the parameters. Typed
-- arrays, for taking rows out of JSON cost more than writing them. User buckets are locked first, then session rows, each in
-- order or without waiting, so that our transactions never deadlock with each other; chosen ids are claimed before, in batches of their
-- own, which wait for no bucket. Plans are made once a connection and
-- reach rows by index or by their place: enable_seqscan and enable_mergejoin are off, for plans made while the tables are nearly
-- empty must serve when they no longer are. The functions called from here inherit these settings.
CREATE FUNCTION {write}(
    node text, mark text, waiting boolean,
    {update_parameters},
    most_sessions integer, evicts boolean,
    {create_parameters}, {access_parameters}, {delete_parameters}) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $pgsession$
DECLARE
    seen xid8 := pg_snapshot_xmax(pg_current_snapshot());  -- first: before this transaction has an id of its own
    noted text := set_config('pgsession.own', 'on', true) || set_config('pgsession.batch', mark, false);
    ran_on text;
    events text;
    answer text;
BEGIN
    IF cardinality(ids) = 1 AND NOT waiting AND set_bases IS NULL AND drop_of IS NULL AND generations IS NULL AND new_ids IS NULL AND deletes IS NULL THEN
        answer := {write_update}(node, {update_arguments});
        IF answer IS NOT NULL THEN
            RETURN '{{"xmax":' || seen || ',' || answer || '}}';
        END IF;
    END IF;
    IF ids IS NULL THEN  -- else the statement that updates looks at the incarnation along with all else
        SELECT i.incarnation::text, {channel_name(i.secret, 'events'::bytea)} INTO ran_on, events FROM {incarnation} i WHERE {valid(i)};
        answer := '"incarnation":' || coalesce('"' || ran_on || '"', 'null');
    END IF;
    IF new_ids IS NOT NULL THEN
        answer := concat_ws(',', answer, {write_creates}(events, node, waiting, most_sessions, evicts,
            {create_arguments}, {access_arguments}));
    END IF;
    IF ids IS NOT NULL THEN
        answer := concat_ws(',', answer, {write_updates}(node, waiting, most_sessions, evicts,
            {update_arguments}, {access_arguments}));
    END IF;
    IF deletes IS NOT NULL THEN
        answer := concat_ws(',', answer, {write_deletes}(events, node, waiting, {delete_arguments}));
    END IF;
    RETURN '{{"xmax":' || seen || ',' || answer || '}}';
END $pgsession$;
