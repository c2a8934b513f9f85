-- Accesses noted by a node: never back (C11), never into the future; no version, no event. Returns the ids that somebody
-- else had locked, 16 bytes each, to be tried again.
-- Without nested loops: a plan that takes the arrays for short would compare each access with each.
CREATE FUNCTION {write_accesses}(ids uuid[], accessed bigint[]) RETURNS bytea
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_mergejoin = off SET enable_nestloop = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $pgsession$
DECLARE
    skipped bytea;
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    WITH t AS MATERIALIZED (
        SELECT x.id, least({timestamp(x.us)}, clock_timestamp()) AS at FROM unnest(ids, accessed) x(id, us)
    ), l AS MATERIALIZED (
        SELECT s.id FROM {sessions} s WHERE s.id = ANY (ids) ORDER BY s.id FOR NO KEY UPDATE SKIP LOCKED
    ), u AS (
        -- By id: a row that changed since this statement's snapshot is not found by its new place. By all of the ids, or a
        -- plan made while the table is small would read all of it when it no longer is.
        UPDATE {sessions} s SET last_accessed = t.at FROM l JOIN t ON t.id = l.id
        WHERE s.id = ANY (ids) AND s.id = l.id AND s.last_accessed < t.at
    )
    SELECT string_agg(uuid_send(m.id), '') INTO skipped
    FROM (SELECT t.id FROM t WHERE NOT EXISTS (SELECT FROM l WHERE l.id = t.id) OFFSET 0) m
    CROSS JOIN LATERAL (SELECT FROM {sessions} s WHERE s.id = m.id OFFSET 0) s;
    RETURN skipped;
END $pgsession$;
