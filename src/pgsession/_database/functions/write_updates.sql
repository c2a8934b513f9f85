-- Changes of sessions. Where nobody waits, no attribute is checked and nothing is rotated, one statement locks, checks and writes.
-- What others change after its snapshot is found, and locked, at a place that the snapshot does not see: the UPDATE passes it by,
-- and it is answered "locked". Elsewhere the rows are locked first, or the snapshot of before a lock wait would still hold the
-- attributes of before it. What is based on another incarnation may be based on what was lost with it: its version, though it
-- be the row's, is another's.
CREATE FUNCTION {write_updates}(node text, waiting boolean, most_sessions integer, evicts boolean,
    {update_parameters}, {access_parameters}) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    held uuid[]; barred jsonb; evicted text[];
    written bigint[]; versions bigint[]; behind bigint[]; refusals bigint[]; refused text;
    announced text[]; written_at timestamptz; here text[]; snapshots text; done boolean;
BEGIN
    IF waiting OR set_bases IS NOT NULL OR generations IS NOT NULL THEN
        SELECT p.held, p.barred, p.evicted INTO held, barred, evicted
        FROM {prepare_updates}(waiting, most_sessions, evicts, {update_arguments}, {access_arguments}) p;
    END IF;
    WITH h AS MATERIALIZED (SELECT i.incarnation, {channel_name(i.secret, 'events'::bytea)} AS events FROM {incarnation} i WHERE {valid(i)}),
    j AS MATERIALIZED (
        SELECT k.i, k.base, k.known, k.flags, k.expiry, k.new_group, k.inactivity, k.moment, s.id, s.place, s.version,
               coalesce({verdict(s, k.moment, k.owned_since, k.flags, k.base, k.known)}, barred->>(k.i::text)) AS verdict,
               {announces(s, k.flags, k.new_group)} AS announce
        FROM (
            -- Read by a clock that is later than the snapshot, and so than all that it sees.
            SELECT x.i, x.id, x.base, x.owned_since, x.flags,
                   ({incarnation_of(x.i)} = (SELECT h.incarnation FROM h)) IS TRUE AS known, x.expiry, {present(x.new_group)} AS new_group, x.inactivity, (SELECT clock_timestamp()) AS moment
            FROM unnest(ids, bases, owners_since, flags, expiries, groups, inactivities) WITH ORDINALITY x(id, base, owned_since, flags, expiry, new_group, inactivity, i)
            WHERE held IS NULL OR x.id = ANY (held)
        ) k CROSS JOIN LATERAL (
            SELECT s.id, s.ctid AS place, s.version, s.owner_since, s.expires_at, s.inactivity, s.last_accessed, s.group_id
            FROM {sessions} s WHERE s.id = k.id FOR NO KEY UPDATE SKIP LOCKED
        ) s
    ), u AS (
        -- Whoever changes a session is there: it is an access, too, and costs nothing more.
        UPDATE {sessions} s SET {changes(s, j.moment, j.flags, j.expiry, j.inactivity, j.new_group)}
        FROM j WHERE s.ctid = j.place AND j.verdict IS NULL
        RETURNING j.i, j.base, j.known, j.moment, j.announce, s.id, s.version
    ), a AS (
        INSERT INTO {attributes} AS a (session_id, version, expires_at, key, value)
        SELECT x.id, x.version, {timestamp_if_any(set_expiries[x.n])}, set_keys[x.n], set_values[x.n]::json
        FROM (SELECT u.id, u.version, generate_series(coalesce(set_ends[u.i - 1], 0) + 1, set_ends[u.i]) AS n FROM u) x
        {or_replace}
    ), r AS MATERIALIZED (
        SELECT array_agg(j.i) AS refusals, string_agg(concat('[', j.i, ',', j.verdict, ']'), ',') AS refused,
               array_agg({changed(j.id, j.version)}) FILTER (WHERE j.flags & {notify_on_conflict} <> 0 AND j.verdict NOT IN ('"gone"', '"taken"')) AS told
        FROM j WHERE j.verdict IS NOT NULL
    )
    SELECT array_agg(u.i), array_agg(u.version), array_agg(u.i) FILTER (WHERE NOT u.known OR u.base <> u.version - 1), max(u.moment),
           array_agg({changed(u.id, u.version)}) FILTER (WHERE u.announce) || (SELECT r.told FROM r),
           (SELECT r.refused FROM r), (SELECT r.refusals FROM r), (SELECT ARRAY[h.incarnation::text, h.events] FROM h)
    INTO written, versions, behind, written_at, announced, refused, refusals, here FROM u;
    IF coalesce(cardinality(written), 0) + coalesce(cardinality(refusals), 0) < cardinality(ids) THEN
        refused := concat_ws(',', refused, {explain_missing}(ids, written || refusals));
    END IF;
    IF drop_of IS NOT NULL THEN
        PERFORM {remove_attributes}(ids, written, drop_of, drop_keys);
    END IF;
    IF generations IS NOT NULL THEN
        behind := behind || {rotate}(ids, written, flags, generations, base_generations, graces, users, written_at);
    END IF;
    IF behind IS NOT NULL THEN
        snapshots := {read_snapshots}(ids, behind, written_at);
    END IF;
    IF evicted IS NOT NULL THEN
        announced := announced || ARRAY(SELECT 'd' || x FROM unnest(evicted) x);
    END IF;
    IF announced IS NOT NULL THEN
        done := {announce}(here[2], node, announced, {sessions_a_payload}) IS NULL;  -- not PERFORM, which sets up a query
    END IF;
    RETURN concat('"incarnation":', coalesce('"' || here[1] || '"', 'null'),
        ',"written":[', array_to_string(written, ','), '],"versions":[', array_to_string(versions, ','),
        '],"updated_at":', coalesce({us(written_at)}, 0), ',"snapshots":[', snapshots, '],"refused":[', refused, '],"displaced":', coalesce(to_json(evicted)::text, '[]'));
END $pgsession$;
