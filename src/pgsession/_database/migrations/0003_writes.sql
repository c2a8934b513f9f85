-- What the library calls to write. Every function sets pgsession.own for the rest of its transaction, which therefore
-- must be the library's own. All lock session rows first, in id order or without waiting, so that they never deadlock
-- with each other. Plans are made once a connection and reach rows by index or by their place: enable_seqscan
-- and enable_mergejoin are off, for plans made while the tables are nearly empty must serve when they no longer are.

-- Group commit: see pgsession._database.statements for the columns and the result. Typed arrays, for taking rows out of JSON cost more
-- than writing them. What only some batches need is a statement of its own, and what needs no table is an assignment.
CREATE FUNCTION {write}(
    node text, mark text, inactivity bigint, waiting boolean,
    ids uuid[], bases bigint[], flags integer[], expiries bigint[], groups text[],
    set_ends integer[], set_keys text[], set_values text[], set_expiries bigint[], set_bases bigint[],
    drop_of integer[], drop_keys text[], drop_bases bigint[],
    most_sessions integer, evicts boolean, new_ids uuid[], new_user_ids text[], new_group_ids text[],
    new_expiries bigint[], new_inactivities boolean[],
    new_ends integer[], new_keys text[], new_values text[], new_attribute_expiries bigint[],
    accessed_ids uuid[], accessed_at bigint[],
    deletes uuid[]) RETURNS text
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $pgsession$
DECLARE
    noted text := set_config('pgsession.own', 'on', true) || set_config('pgsession.batch', mark, false);
    idle interval := inactivity * interval '1 microsecond';
    moment timestamptz;
    moment_us bigint;
    ran_on text;
    held uuid[];
    announced text[] := '{{}}';
    evicted text[];
    more text[];
    conflicts jsonb;
    written bigint[];
    versions bigint[];
    written_at timestamptz;
    behind bigint[];
    refused text;
    refusals bigint[];
    snapshots text;
    turned_away text;
    deleted text;
    too_many bigint[];
    overtaken bigint[];
    blocked bigint[];
    full_users text[];
    excess bigint[];
BEGIN
    IF new_ids IS NOT NULL THEN
        IF most_sessions > 0 THEN
            -- One login of a user at a time, or two would both find room; the count is taken by a later statement (READ COMMITTED).
            PERFORM pg_advisory_xact_lock(k.key) FROM (
                SELECT DISTINCT hashtextextended({channel} || u.user_id, 0) AS key FROM unnest(new_user_ids) u(user_id) ORDER BY 1) k;
            moment := clock_timestamp();
            -- More arrivals of one user than may be there: the first ones are evicted by the last ones before they exist.
            WITH c AS MATERIALIZED (
                SELECT u.i, u.user_id, row_number() OVER w AS arrival, count(*) OVER (PARTITION BY u.user_id) AS arriving
                FROM unnest(new_user_ids) WITH ORDINALITY u(user_id, i) WINDOW w AS (PARTITION BY u.user_id ORDER BY u.i)
            ), n AS MATERIALIZED (
                SELECT u.user_id, least(u.arriving, most_sessions) AS staying, l.living
                FROM (SELECT c.user_id, c.arriving FROM c WHERE c.arrival = 1) u CROSS JOIN LATERAL (
                    SELECT count(*) AS living FROM {sessions} s
                    WHERE s.user_id = u.user_id AND s.expires_at > moment
                    AND (NOT s.include_inactivity OR s.last_accessed > moment - idle OR EXISTS (
                        SELECT FROM unnest(accessed_ids, accessed_at) t(id, us)
                        WHERE t.id = s.id AND timestamptz 'epoch' + t.us * interval '1 microsecond' > moment - idle))
                    OFFSET 0) l
            )
            SELECT (SELECT array_agg(c.i) FROM c JOIN n USING (user_id) WHERE NOT evicts AND c.arrival > most_sessions - n.living),
                   (SELECT array_agg(c.i) FROM c WHERE evicts AND c.arriving - c.arrival >= most_sessions),
                   array_agg(n.user_id) FILTER (WHERE evicts AND n.living + n.staying > most_sessions),
                   array_agg(n.living + n.staying - most_sessions) FILTER (WHERE evicts AND n.living + n.staying > most_sessions)
            INTO too_many, overtaken, full_users, excess FROM n;
        END IF;

        IF full_users IS NOT NULL THEN
            -- A session that somebody writes to at this moment is not the least recently used one: skip it.
            WITH t AS MATERIALIZED (
                SELECT t.id, max(t.us) * interval '1 microsecond' + timestamptz 'epoch' AS at
                FROM unnest(accessed_ids, accessed_at) t(id, us) GROUP BY 1
            ), v AS MATERIALIZED (
                SELECT n.user_id, n.excess, l.id FROM unnest(full_users, excess) n(user_id, excess) LEFT JOIN LATERAL (
                    SELECT s.id FROM {sessions} s LEFT JOIN t ON t.id = s.id
                    WHERE s.user_id = n.user_id AND s.expires_at > moment
                    AND (NOT s.include_inactivity OR greatest(s.last_accessed, t.at) > moment - idle)
                    ORDER BY greatest(s.last_accessed, t.at), s.id LIMIT n.excess FOR UPDATE OF s SKIP LOCKED) l ON true
            ), w AS (
                SELECT v.user_id, max(v.excess) > count(v.id) AS short, array_agg(v.id) AS ids FROM v GROUP BY v.user_id
            )
            SELECT (SELECT array_agg(u.i) FROM unnest(new_user_ids) WITH ORDINALITY u(user_id, i) JOIN w USING (user_id) WHERE w.short),
                   (SELECT array_agg(x) FROM w CROSS JOIN unnest(w.ids) x WHERE NOT w.short)
            INTO blocked, held;
            DELETE FROM {sessions} WHERE id = ANY (held);
        END IF;

        moment := clock_timestamp();
        moment_us := {moment_us};
        WITH c AS MATERIALIZED (
            SELECT u.* FROM unnest(new_ids, new_user_ids, new_group_ids, new_expiries, new_inactivities)
                WITH ORDINALITY u(id, user_id, group_id, expiry, include_inactivity, i)
            WHERE u.i <> ALL (coalesce(too_many || blocked || overtaken, '{{}}'))
        ), s AS (
            INSERT INTO {sessions} (id, version, created_at, updated_at, last_accessed, expires_at, include_inactivity, user_id, group_id)
            SELECT c.id, 1, moment, moment, moment, timestamptz 'epoch' + c.expiry * interval '1 microsecond', c.include_inactivity,
                   c.user_id, c.group_id FROM c
        )
        INSERT INTO {attributes} (session_id, version, expires_at, key, value)
        SELECT x.id, 1, timestamptz 'epoch' + new_attribute_expiries[x.n] * interval '1 microsecond', new_keys[x.n], new_values[x.n]::json
        FROM (SELECT c.id, generate_series(coalesce(new_ends[c.i - 1], 0) + 1, new_ends[c.i]) AS n FROM c) x;
        IF too_many IS NOT NULL OR blocked IS NOT NULL THEN
            SELECT string_agg(concat('[', x.i, CASE WHEN x.i = ANY (too_many) THEN ',"too_many"]' ELSE ',"locked"]' END), ',')
            INTO turned_away FROM unnest(too_many || blocked) x(i);
        END IF;
        IF held IS NOT NULL OR overtaken IS NOT NULL THEN
            SELECT array_agg(encode(uuid_send(x.id), 'hex')) INTO evicted FROM (
                SELECT unnest(held) AS id
                UNION ALL SELECT new_ids[o.i] FROM unnest(overtaken) o(i) WHERE o.i <> ALL (coalesce(blocked, '{{}}'))) x;
            announced := ARRAY(SELECT 'd' || x FROM unnest(evicted) x);
        END IF;
    END IF;

    IF ids IS NOT NULL THEN
        -- Where nobody waits and no attribute is checked, one statement locks, checks and writes. What others change after
        -- its snapshot is found, and locked, at a place that the snapshot does not see: the UPDATE passes it by, and it is
        -- answered "locked". Elsewhere the rows are locked first, or the snapshot of before a lock wait would still hold
        -- the attributes of before it.
        held := NULL;
        IF waiting THEN
            SELECT coalesce(array_agg(l.id), '{{}}') INTO held FROM (
                SELECT s.id FROM {sessions} s WHERE s.id = ANY (ids) ORDER BY s.id FOR NO KEY UPDATE) l;
        ELSIF set_bases IS NOT NULL THEN
            SELECT coalesce(array_agg(l.id), '{{}}') INTO held FROM (
                SELECT s.id FROM {sessions} s WHERE s.id = ANY (ids) ORDER BY s.id FOR NO KEY UPDATE SKIP LOCKED) l;
        END IF;
        conflicts := '{{}}';
        IF set_bases IS NOT NULL THEN
            moment := clock_timestamp();
            -- An expired attribute counts as absent, or as its own version.
            SELECT coalesce(jsonb_object_agg(w.i, w.keys), '{{}}') INTO conflicts FROM (
                SELECT k.i, json_agg(x.key)::text AS keys
                FROM unnest(ids, flags) WITH ORDINALITY k(id, flags, i)
                CROSS JOIN LATERAL (
                    SELECT set_keys[n] AS key, set_bases[n] AS base
                    FROM generate_series(coalesce(set_ends[k.i - 1], 0) + 1, set_ends[k.i]) n
                    UNION ALL SELECT d.key, d.base FROM unnest(drop_of, drop_keys, drop_bases) d(i, key, base) WHERE d.i = k.i) x
                LEFT JOIN LATERAL (SELECT a.version, a.expires_at FROM {attributes} a
                                   WHERE a.session_id = k.id AND a.key = x.key OFFSET 0) a ON true
                WHERE k.flags & {check_attributes} <> 0 AND x.base <> coalesce(a.version, 0)
                AND NOT (x.base = 0 AND a.expires_at <= moment IS TRUE)
                GROUP BY k.i) w;
        END IF;
        WITH j AS MATERIALIZED (
            SELECT k.i, k.base, k.flags, k.expiry, k.new_group, k.moment, s.id, s.place, s.version,
                   CASE WHEN s.expires_at <= k.moment OR (s.include_inactivity AND s.last_accessed <= k.moment - idle) THEN 'gone'
                        WHEN k.flags & {check_session} <> 0 AND k.base <> s.version THEN 'session'
                        WHEN conflicts ? k.i::text THEN 'attributes'
                        ELSE 'ok' END AS verdict,
                   k.flags & {notify} <> 0
                   OR (k.flags & {change_group} <> 0 AND k.new_group IS DISTINCT FROM s.group_id) AS announce
            FROM (
                -- Read by a clock that is later than the snapshot, and so than all that it sees.
                SELECT x.*, (SELECT clock_timestamp()) AS moment
                FROM unnest(ids, bases, flags, expiries, groups) WITH ORDINALITY x(id, base, flags, expiry, new_group, i)
                WHERE held IS NULL OR x.id = ANY (held)
            ) k
            CROSS JOIN LATERAL (
                SELECT s.id, s.ctid AS place, s.version, s.expires_at, s.include_inactivity, s.last_accessed, s.group_id
                FROM {sessions} s WHERE s.id = k.id FOR NO KEY UPDATE SKIP LOCKED
            ) s
        ), u AS (
            -- Whoever changes a session is there: it is an access, too, and costs nothing more.
            UPDATE {sessions} s SET version = s.version + 1, updated_at = j.moment, last_accessed = greatest(s.last_accessed, j.moment),
                expires_at = coalesce(timestamptz 'epoch' + j.expiry * interval '1 microsecond', s.expires_at),
                include_inactivity = CASE j.flags & {change_inactivity} WHEN 0 THEN s.include_inactivity
                                                                        ELSE j.flags & {include_inactivity} <> 0 END,
                group_id = CASE j.flags & {change_group} WHEN 0 THEN s.group_id ELSE j.new_group END
            FROM j WHERE s.ctid = j.place AND j.verdict = 'ok'
            RETURNING j.i, j.base, j.moment, j.announce, s.id, s.version
        ), a AS (
            INSERT INTO {attributes} AS a (session_id, version, expires_at, key, value)
            SELECT x.id, x.version, timestamptz 'epoch' + set_expiries[x.n] * interval '1 microsecond', set_keys[x.n], set_values[x.n]::json
            FROM (SELECT u.id, u.version, generate_series(coalesce(set_ends[u.i - 1], 0) + 1, set_ends[u.i]) AS n FROM u) x
            ON CONFLICT (session_id, key) DO UPDATE
                SET version = excluded.version, expires_at = excluded.expires_at, value = excluded.value
        ), r AS MATERIALIZED (
            SELECT array_agg(j.i) AS refusals,
                   string_agg(concat('[', j.i, ',"', j.verdict, CASE j.verdict WHEN 'session' THEN concat('",', j.version)
                                                                  WHEN 'attributes' THEN concat('",', conflicts->>(j.i::text))
                                                                  ELSE '"' END, ']'), ',') AS refused,
                   array_agg(concat('u', encode(uuid_send(j.id), 'hex'), ':', j.version))
                       FILTER (WHERE j.flags & {notify_on_conflict} <> 0 AND j.verdict <> 'gone') AS told
            FROM j WHERE j.verdict <> 'ok'
        )
        SELECT array_agg(u.i), array_agg(u.version), array_agg(u.i) FILTER (WHERE u.base <> u.version - 1), max(u.moment),
               array_agg(concat('u', encode(uuid_send(u.id), 'hex'), ':', u.version)) FILTER (WHERE u.announce)
                   || (SELECT r.told FROM r),
               (SELECT r.refused FROM r), (SELECT r.refusals FROM r),
               (SELECT i.incarnation FROM {incarnation} i WHERE i.started_at = pg_postmaster_start_time())
        INTO written, versions, behind, written_at, more, refused, refusals, ran_on FROM u;
        announced := announced || more;
        IF coalesce(cardinality(written), 0) + coalesce(cardinality(refusals), 0) < cardinality(ids) THEN
            SELECT concat_ws(',', refused, string_agg(concat('[', k.i, CASE WHEN s.here THEN ',"locked"]' ELSE ',"gone"]' END), ','))
            INTO refused
            FROM unnest(ids) WITH ORDINALITY k(id, i)
            LEFT JOIN LATERAL (SELECT true AS here FROM {sessions} s WHERE s.id = k.id OFFSET 0) s ON true
            WHERE k.i <> ALL (coalesce(written || refusals, '{{}}'));
        END IF;
        IF drop_of IS NOT NULL THEN
            DELETE FROM {attributes} WHERE ctid = ANY (ARRAY(
                SELECT p.place FROM unnest(drop_of, drop_keys) d(i, key)
                CROSS JOIN LATERAL (
                    SELECT a.ctid AS place FROM {attributes} a WHERE a.session_id = ids[d.i] AND a.key = d.key OFFSET 0) p
                WHERE d.i = ANY (written)));
        END IF;
        IF behind IS NOT NULL THEN
            moment := written_at;
            -- In a string: what only plain SQL can store, and no reader takes, must not make the whole answer unreadable.
            SELECT string_agg(concat('[', b.i, ',', to_json({snapshot_at_moment}), ']'), ',') INTO snapshots
            FROM unnest(behind) b(i) JOIN {sessions} s ON s.id = ids[b.i];
        END IF;
    END IF;

    IF deletes IS NOT NULL THEN
        IF waiting THEN
            SELECT array_agg(l.id) INTO held
            FROM (SELECT id FROM {sessions} WHERE id = ANY (deletes) ORDER BY id FOR UPDATE) l;
        ELSE
            SELECT array_agg(l.id) INTO held
            FROM (SELECT id FROM {sessions} WHERE id = ANY (deletes) ORDER BY id FOR UPDATE SKIP LOCKED) l;
        END IF;
        moment := clock_timestamp();
        WITH j AS MATERIALIZED (
            SELECT k.i, k.id, s.place, k.id = ANY (held) IS TRUE AS held, s.live
            FROM unnest(deletes) WITH ORDINALITY k(id, i)
            LEFT JOIN LATERAL (
                SELECT s.ctid AS place, s.expires_at > moment AND (NOT s.include_inactivity OR s.last_accessed > moment - idle) AS live
                FROM {sessions} s WHERE s.id = k.id OFFSET 0
            ) s ON true
        ), d AS (
            DELETE FROM {sessions} s USING j WHERE s.ctid = j.place AND j.held
        )
        SELECT string_agg('[' || j.i || CASE WHEN j.place IS NOT NULL AND NOT j.held THEN ',"locked"]'
                                             WHEN j.live THEN ',"ok"]' ELSE ',"gone"]' END, ','),
               array_agg('d' || encode(uuid_send(j.id), 'hex')) FILTER (WHERE j.held AND j.place IS NOT NULL)
        INTO deleted, more FROM j;
        announced := announced || more;
    END IF;

    IF cardinality(announced) BETWEEN 1 AND 140 THEN
        noted := pg_notify({channel}, node || ' ' || array_to_string(announced, ' '));
    ELSIF cardinality(announced) > 140 THEN
        PERFORM {announce}(node, announced);
    END IF;
    IF ran_on IS NULL THEN
        SELECT i.incarnation INTO ran_on FROM {incarnation} i WHERE i.started_at = pg_postmaster_start_time();
    END IF;
    RETURN concat('{{"incarnation":', coalesce('"' || ran_on || '"', 'null'),
        ',"turned_away":[', turned_away, '],"created_at":', coalesce(moment_us, 0),
        ',"written":[', array_to_string(written, ','), '],"versions":[', array_to_string(versions, ','),
        '],"updated_at":', coalesce((extract(epoch FROM written_at) * 1000000)::bigint, 0), ',"snapshots":[', snapshots, '],"refused":[', refused,
        '],"delete":[', deleted, '],"evicted":', coalesce(to_json(evicted)::text, '[]'), '}}');
END $pgsession$;

-- Accesses noted by a node: never back (C11), never into the future; no version, no event. Returns the ids that somebody
-- else had locked, 16 bytes each, to be tried again.
CREATE FUNCTION {write_accesses}(ids uuid[], accessed bigint[]) RETURNS bytea
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan
AS $pgsession$
DECLARE
    skipped bytea;
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    WITH t AS MATERIALIZED (
        SELECT x.id, least(timestamptz 'epoch' + x.us * interval '1 microsecond', clock_timestamp()) AS at
        FROM unnest(ids, accessed) x(id, us)
    ), l AS MATERIALIZED (
        SELECT s.id FROM {sessions} s WHERE s.id = ANY (ids) ORDER BY s.id FOR NO KEY UPDATE SKIP LOCKED
    ), u AS (
        -- By id: a row that changed since this statement's snapshot is not found by its new place.
        UPDATE {sessions} s SET last_accessed = t.at FROM l JOIN t ON t.id = l.id
        WHERE s.id = l.id AND s.last_accessed < t.at
    )
    SELECT string_agg(uuid_send(t.id), '') INTO skipped FROM t
    WHERE NOT EXISTS (SELECT FROM l WHERE l.id = t.id)
    AND EXISTS (SELECT FROM {sessions} s WHERE s.id = t.id);
    RETURN skipped;
END $pgsession$;

-- One bounded step through the sessions of a user, a group, or all, in id order from the nil uuid on. last is null when
-- there are no more; skipped counts those that somebody else had locked, which a second walk with waiting gets.
CREATE FUNCTION {delete_many}(node text, scope text, subject text, keep uuid, after uuid, size integer, waiting boolean,
                              OUT last uuid, OUT deleted bigint, OUT skipped bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_mergejoin = off SET jit = off
AS $pgsession$
DECLARE
    page uuid[];
    held uuid[];
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    page := {page}(scope, subject, keep, after, size);
    last := page[cardinality(page)];
    held := {hold}(page, scope, subject, waiting);
    DELETE FROM {sessions} s WHERE s.id = ANY (held);
    deleted := coalesce(cardinality(held), 0);
    skipped := coalesce(cardinality(page), 0) - deleted;
    PERFORM {announce_many}(node, scope, subject, 'd', held, NULL);
END $pgsession$;

-- The same walk, for one attribute of a user's sessions: each that had it goes to its next version.
CREATE FUNCTION {drop_attribute}(node text, subject text, attribute text, after uuid, size integer, waiting boolean,
                                 OUT last uuid, OUT changed bigint, OUT skipped bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_mergejoin = off SET jit = off
AS $pgsession$
DECLARE
    page uuid[];
    held uuid[];
    had uuid[];
    versions bigint[];
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    page := {page}('user', subject, NULL, after, size);
    last := page[cardinality(page)];
    held := {hold}(page, 'user', subject, waiting);
    skipped := coalesce(cardinality(page), 0) - coalesce(cardinality(held), 0);
    WITH d AS (
        DELETE FROM {attributes} a WHERE a.session_id = ANY (held) AND a.key = attribute RETURNING a.session_id, a.expires_at
    ), u AS (
        UPDATE {sessions} s SET version = s.version + 1, updated_at = clock_timestamp()
        FROM d WHERE s.id = d.session_id AND (d.expires_at > clock_timestamp()) IS NOT FALSE RETURNING s.id, s.version
    )
    SELECT array_agg(u.id), array_agg(u.version) INTO had, versions FROM u;
    changed := coalesce(cardinality(had), 0);
    PERFORM {announce_many}(node, 'user', subject, 'u', had, versions);
END $pgsession$;

-- The next ids of a walk. Three statements, so that each has a plan of its own.
CREATE FUNCTION {page}(scope text, subject text, keep uuid, after uuid, size integer) RETURNS uuid[]
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off
AS $pgsession$
BEGIN
    CASE scope
        WHEN 'user' THEN
            RETURN (SELECT array_agg(p.id) FROM (SELECT s.id FROM {sessions} s WHERE s.user_id = subject AND s.id > after
                    AND s.id IS DISTINCT FROM keep ORDER BY s.id LIMIT size) p);
        WHEN 'group' THEN
            RETURN (SELECT array_agg(p.id) FROM (SELECT s.id FROM {sessions} s WHERE s.group_id = subject AND s.id > after
                    ORDER BY s.id LIMIT size) p);
        WHEN 'all' THEN
            RETURN (SELECT array_agg(p.id) FROM (SELECT s.id FROM {sessions} s WHERE s.id > after ORDER BY s.id LIMIT size) p);
    END CASE;
END $pgsession$;

-- Locks those of a page that still belong to it.
CREATE FUNCTION {hold}(page uuid[], scope text, subject text, waiting boolean) RETURNS uuid[]
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off
AS $pgsession$
BEGIN
    IF waiting THEN
        RETURN (SELECT array_agg(l.id) FROM (SELECT s.id FROM {sessions} s WHERE s.id = ANY (page)
                AND CASE scope WHEN 'user' THEN s.user_id = subject WHEN 'group' THEN s.group_id = subject ELSE true END
                ORDER BY s.id FOR UPDATE) l);
    END IF;
    RETURN (SELECT array_agg(l.id) FROM (SELECT s.id FROM {sessions} s WHERE s.id = ANY (page)
            AND CASE scope WHEN 'user' THEN s.user_id = subject WHEN 'group' THEN s.group_id = subject ELSE true END
            ORDER BY s.id FOR UPDATE SKIP LOCKED) l);
END $pgsession$;

-- One payload: by id while they fit, else by what they have in common.
CREATE FUNCTION {announce_many}(node text, scope text, subject text, kind text, ids uuid[], versions bigint[]) RETURNS void
LANGUAGE plpgsql AS $pgsession$
BEGIN
    IF cardinality(ids) <= 140 THEN
        PERFORM {announce}(node, (SELECT array_agg(concat(kind, encode(uuid_send(x.id), 'hex'), ':' || x.version))
                                  FROM unnest(ids, versions) x(id, version)));
    ELSIF cardinality(ids) > 140 THEN
        PERFORM pg_notify({channel}, node || CASE scope WHEN 'user' THEN ' U' WHEN 'group' THEN ' G' ELSE ' A' END
                          || CASE scope WHEN 'all' THEN '' ELSE encode(convert_to(subject, 'UTF8'), 'hex') END);
    END IF;
END $pgsession$;

-- One bounded step of the cleanup; busy when another node does one at this moment.
--   'expired'     sessions past expires_at, by its index
--   'inactive'    walks the primary key from the nil uuid on, for an index on last_accessed would cost every noted access its HOT
--                 update; last is null when the walk is over
--   'attributes'  past their expiry: they were invisible already, so no version is raised and nobody is told
--   'locks'       whose lease ran out
CREATE FUNCTION {cleanup}(node text, what text, inactivity bigint, after uuid, size integer,
                          OUT last uuid, OUT removed bigint, OUT busy boolean)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_mergejoin = off SET jit = off
AS $pgsession$
DECLARE
    moment timestamptz := clock_timestamp();
    page uuid[];
    doomed uuid[];
BEGIN
    removed := 0;
    busy := NOT pg_try_advisory_xact_lock(hashtextextended({channel} || ' cleanup', 1));
    IF busy THEN
        RETURN;
    END IF;
    PERFORM set_config('pgsession.own', 'on', true);
    CASE what
        WHEN 'expired' THEN
            SELECT array_agg(e.id) INTO doomed FROM (
                SELECT s.id FROM {sessions} s WHERE s.expires_at <= moment ORDER BY s.expires_at LIMIT size
                FOR UPDATE SKIP LOCKED) e;
        WHEN 'inactive' THEN
            page := {page}('all', NULL, NULL, after, size);
            last := page[cardinality(page)];
            SELECT array_agg(e.id) INTO doomed FROM (
                SELECT s.id FROM {sessions} s WHERE s.id = ANY (page) AND s.include_inactivity
                AND s.last_accessed <= moment - inactivity * interval '1 microsecond' ORDER BY s.id FOR UPDATE SKIP LOCKED) e;
        WHEN 'attributes' THEN
            DELETE FROM {attributes} WHERE ctid = ANY (ARRAY(
                SELECT a.ctid FROM {attributes} a WHERE a.expires_at <= moment ORDER BY a.expires_at LIMIT size
                FOR UPDATE SKIP LOCKED));
            GET DIAGNOSTICS removed = ROW_COUNT;
        WHEN 'locks' THEN
            DELETE FROM {locks} WHERE ctid = ANY (ARRAY(
                SELECT l.ctid FROM {locks} l WHERE l.expires_at <= moment ORDER BY l.expires_at LIMIT size
                FOR UPDATE SKIP LOCKED));
            GET DIAGNOSTICS removed = ROW_COUNT;
    END CASE;
    IF doomed IS NOT NULL THEN
        DELETE FROM {sessions} s WHERE s.id = ANY (doomed);
        removed := cardinality(doomed);
        PERFORM {announce}(node, (SELECT array_agg('d' || encode(uuid_send(x), 'hex')) FROM unnest(doomed) x));
    END IF;
END $pgsession$;

-- Takes a free or expired lock. Tokens grow with every hand-over: nextval() runs in an UPDATE, which computes its row
-- again once it holds the row's lock; in an INSERT a loser could come back with a token older than the winner's.
-- acquired is false while somebody else holds it, and null where session_id names no live session.
CREATE FUNCTION {acquire}(name text, claimant uuid, lease bigint, session uuid, inactivity bigint,
                          OUT acquired boolean, OUT fence bigint, OUT until bigint, OUT now bigint)
LANGUAGE plpgsql AS $pgsession$
DECLARE
    ends timestamptz;
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    IF session IS NOT NULL THEN
        -- KEY SHARE: a delete of the session waits for this transaction, and then finds the lock to end it.
        PERFORM FROM {sessions} s WHERE s.id = session AND s.expires_at > clock_timestamp()
            AND (NOT s.include_inactivity OR s.last_accessed > clock_timestamp() - inactivity * interval '1 microsecond')
            FOR KEY SHARE;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    -- A look without a lock, for those who wait by asking again and again.
    SELECT l.expires_at INTO ends FROM {locks} l WHERE l.resource = name;
    IF NOT FOUND THEN
        -- Taken below, under the row's lock: a token drawn before it could be older than the last holder's.
        INSERT INTO {locks} (resource, owner, token, acquired_at, expires_at)
        VALUES (name, claimant, 0, timestamptz 'epoch', timestamptz 'epoch') ON CONFLICT (resource) DO NOTHING;
        ends := timestamptz 'epoch';
    END IF;
    IF ends <= clock_timestamp() THEN
        UPDATE {locks} l SET owner = claimant, token = nextval({fencing_literal}), session_id = session, acquired_at = clock_timestamp(),
            expires_at = clock_timestamp() + lease * interval '1 microsecond'
        WHERE l.resource = name AND l.expires_at <= clock_timestamp()
        RETURNING l.token, l.expires_at INTO fence, ends;
        acquired := FOUND;
    ELSE
        acquired := false;
    END IF;
    until := (extract(epoch FROM ends) * 1000000)::bigint;
    now := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $pgsession$;

-- The incarnation of this server: a new one where the row is gone or was made before the last start. started is true for
-- whoever made it.
CREATE FUNCTION {incarnate}(OUT incarnation text, OUT started boolean)
LANGUAGE plpgsql AS $pgsession$
#variable_conflict use_column
BEGIN
    started := false;
    SELECT i.incarnation::text INTO incarnation FROM {incarnation} i JOIN pg_control_system() c USING (system_identifier)
    WHERE i.started_at = pg_postmaster_start_time();
    IF NOT FOUND THEN
        INSERT INTO {incarnation} AS i (incarnation, system_identifier, started_at)
        SELECT gen_random_uuid(), c.system_identifier, pg_postmaster_start_time() FROM pg_control_system() c
        ON CONFLICT (single) DO UPDATE SET incarnation = excluded.incarnation, system_identifier = excluded.system_identifier,
            started_at = excluded.started_at
        WHERE (i.system_identifier, i.started_at) IS DISTINCT FROM (excluded.system_identifier, excluded.started_at);
        started := FOUND;
        SELECT i.incarnation::text INTO incarnation FROM {incarnation} i;
    END IF;
END $pgsession$;
