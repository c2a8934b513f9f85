-- Group commit: see pgsession._database.statements for the answer, pgsession._database.columns for the parameters. Typed
-- arrays, for taking rows out of JSON cost more than writing them. User buckets are locked first, then session rows, each in
-- order or without waiting, so that our transactions never deadlock with each other. Plans are made once a connection and
-- reach rows by index or by their place: enable_seqscan and enable_mergejoin are off, for plans made while the tables are nearly
-- empty must serve when they no longer are. The functions called from here inherit these settings.
CREATE FUNCTION {write}(
    node text, mark text, inactivity bigint, waiting boolean,
    {update_parameters},
    most_sessions integer, evicts boolean,
    {create_parameters},
    {delete_parameters}) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $pgsession$
DECLARE
    noted text := set_config('pgsession.own', 'on', true) || set_config('pgsession.batch', mark, false);
    idle interval := inactivity * interval '1 microsecond';
    answer text;
BEGIN
    IF new_ids IS NOT NULL THEN
        answer := {write_creates}(node, idle, waiting, most_sessions, evicts, {create_arguments});
    END IF;
    IF ids IS NOT NULL THEN
        answer := concat_ws(',', answer, {write_updates}(node, idle, waiting, {update_arguments}));
    END IF;
    IF deletes IS NOT NULL THEN
        answer := concat_ws(',', answer, {write_deletes}(node, idle, waiting, {delete_arguments}));
    END IF;
    IF ids IS NULL THEN
        answer := concat_ws(',', '"incarnation":' || coalesce('"' || {current_incarnation} || '"', 'null'), answer);
    END IF;
    RETURN '{{' || coalesce(answer, '') || '}}';
END $pgsession$;
