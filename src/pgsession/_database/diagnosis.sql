-- What can be known of the server and of what goes on there without looking into our tables: one JSON object, in microseconds and
-- with names that are those of pg_catalog: it is for a search_path of ours.
WITH d AS MATERIALIZED (
    SELECT oid, datconnlimit FROM pg_database WHERE datname = current_database()
), o AS MATERIALIZED (
    SELECT c.oid, c.relname, c.reloptions FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = {schema} AND c.relname = ANY ({relations}) AND c.relkind = 'r'
), s AS MATERIALIZED (
    SELECT sum(numbackends) AS everywhere, sum(numbackends) FILTER (WHERE datid = (SELECT oid FROM d)) AS here FROM pg_stat_database
), a AS MATERIALIZED (
    SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid()
)
SELECT json_build_object(
    'version', current_setting('server_version'),
    'version_number', current_setting('server_version_num')::integer,
    'role', quote_ident(current_user),
    'standby', pg_is_in_recovery(),
    'now', {us(clock_timestamp())},
    'place', {place},
    'connections_left', (SELECT least(
        current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
            - coalesce(current_setting('reserved_connections', true), '0')::integer - s.everywhere,
        CASE WHEN d.datconnlimit >= 0 THEN d.datconnlimit - s.here END,
        (SELECT CASE WHEN r.rolconnlimit >= 0 THEN r.rolconnlimit - 1 - (SELECT count(*) FROM a WHERE a.usesysid = r.oid) END
         FROM pg_roles r WHERE r.rolname = session_user)) FROM s, d),
    'sees_transactions', pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
    'transactions', coalesce((SELECT json_agg(json_build_array(t.pid, t.usename, t.state, t.lasts)) FROM (
        SELECT a.pid, a.usename, coalesce(a.state, '') AS state, extract(epoch FROM clock_timestamp() - a.xact_start)::bigint AS lasts
        FROM a WHERE a.datid = (SELECT oid FROM d) AND a.backend_type = 'client backend'
        AND a.xact_start < clock_timestamp() - {long} * interval '1 second' ORDER BY a.xact_start LIMIT 5) t), '[]'),
    'locks', coalesce((SELECT json_agg(DISTINCT concat_ws(' ', o.relname, l.mode, l.pid)) FROM pg_locks l JOIN o ON o.oid = l.relation
        WHERE l.database = (SELECT oid FROM d) AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
        AND l.mode IN ('AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')), '[]'),
    'autovacuum', current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean,
    'not_vacuumed', coalesce((SELECT json_agg(o.relname ORDER BY o.relname) FROM o CROSS JOIN LATERAL pg_options_to_table(o.reloptions) p
        WHERE p.option_name = 'autovacuum_enabled' AND NOT p.option_value::boolean), '[]'),
    'synchronous_standbys', current_setting('synchronous_standby_names'),
    'queue_usage', pg_notification_queue_usage()
)::text
