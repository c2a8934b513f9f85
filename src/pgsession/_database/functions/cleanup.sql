-- One bounded step of the cleanup; busy when another node does one at this moment.
--   'expired'     sessions past expires_at, by its index
--   'inactive'    that have been so for `delay` microseconds, for an access may still be on its way; walks the primary key from the nil uuid on, for an index on last_accessed would cost every noted access its HOT
--                 update; last is null when the walk is over
--   'attributes'  past their expiry: they were invisible already, so no version is raised and nobody is told
--   'locks'       whose lease ran out
--   'nodes'       that said long ago that they are there, and have nothing left that they may serve
CREATE FUNCTION {cleanup}(node text, what text, delay bigint, after uuid, size integer,
                          OUT last uuid, OUT removed bigint, OUT busy boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_mergejoin = off SET jit = off
AS $pgsession$
DECLARE
    moment timestamptz := clock_timestamp();
    page uuid[];
    doomed uuid[];
BEGIN
    removed := 0;
    PERFORM set_config('pgsession.own', 'on', true);
    PERFORM FROM {buckets} b WHERE b.bucket = -1 FOR NO KEY UPDATE SKIP LOCKED;
    busy := NOT FOUND;
    IF busy THEN
        INSERT INTO {buckets} VALUES (-1) ON CONFLICT DO NOTHING;  -- where somebody has removed it
        RETURN;
    END IF;
    CASE what
        WHEN 'expired' THEN
            SELECT array_agg(e.id) INTO doomed FROM (
                SELECT s.id FROM {sessions} s WHERE s.expires_at <= moment ORDER BY s.expires_at LIMIT size
                FOR UPDATE SKIP LOCKED) e;
        WHEN 'inactive' THEN
            page := {page}('all'::text, NULL::text, NULL::uuid, after, size);
            last := page[cardinality(page)];
            SELECT array_agg(e.id) INTO doomed FROM (
                SELECT s.id FROM {sessions} s WHERE s.id = ANY (page)
                AND s.last_accessed <= moment - s.inactivity - delay * interval '1 microsecond' ORDER BY s.id FOR UPDATE SKIP LOCKED) e;
        WHEN 'attributes' THEN
            removed := {remove_expired}(moment, size);
        WHEN 'locks' THEN
            DELETE FROM {locks} WHERE resource = ANY (ARRAY(
                SELECT l.resource FROM {locks} l WHERE l.expires_at <= moment ORDER BY l.expires_at LIMIT size
                FOR UPDATE SKIP LOCKED));
            GET DIAGNOSTICS removed = ROW_COUNT;
        WHEN 'nodes' THEN
            DELETE FROM {nodes} n WHERE n.node = ANY (ARRAY(
                SELECT n.node FROM {nodes} n WHERE n.registered_at + n.serves_for < moment - {silence} LIMIT size
                FOR UPDATE SKIP LOCKED));
            GET DIAGNOSTICS removed = ROW_COUNT;
    END CASE;
    IF doomed IS NOT NULL THEN
        PERFORM {end_many}(doomed);
        removed := cardinality(doomed);
        PERFORM {announce}(NULL::text, node, ARRAY(SELECT {deleted(x.id)} FROM unnest(doomed) x(id)), {sessions_a_payload});
    END IF;
END $pgsession$;
