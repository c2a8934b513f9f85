-- What the database knows of all nodes' sessions: one JSON object. Names are those of pg_catalog: it is for a search_path of ours.
WITH s AS MATERIALIZED (
    SELECT count(*) AS there,
           count(*) FILTER (WHERE {live(s, now())}) AS live,
           count(*) FILTER (WHERE {live(s, now())} AND s.user_id IS NULL) AS anonymous,
           count(*) FILTER (WHERE s.expires_at <= now()) AS expired,
           min(s.created_at) FILTER (WHERE {live(s, now())}) AS oldest,
           max(s.last_accessed) AS accessed
    FROM {sessions} s
), t AS MATERIALIZED (
    SELECT w.name, w.place, pg_table_size(w.place) AS size, pg_indexes_size(w.place) AS indexes, u.n_live_tup, u.n_dead_tup,
           greatest(u.last_vacuum, u.last_autovacuum) AS vacuumed
    FROM (VALUES ('sessions', {sessions_oid}), ('attributes', {attributes_oid}), ('locks', {locks_oid})) w(name, place)
    LEFT JOIN pg_stat_all_tables u ON u.relid = w.place
)
SELECT json_build_object(
    'sessions', (SELECT json_build_object('live', live, 'anonymous', anonymous, 'expired_not_deleted', expired,
        'inactive_not_deleted', there - live - expired,
        'oldest_created_at', {us(oldest)}, 'last_accessed', {us(accessed)}) FROM s),
    'locks', json_build_object('held', (SELECT count(*) FROM {locks} l WHERE l.expires_at > now())),
    'nodes', json_build_object('registered', (SELECT count(*) FROM {nodes})),
    'tables', (SELECT json_object_agg(name, json_build_object('table_bytes', size, 'index_bytes', indexes, 'rows_estimate',
        n_live_tup, 'dead_rows_estimate', n_dead_tup, 'last_vacuum_at', {us(vacuumed)})) FROM t),
    'server', json_build_object('version', current_setting('server_version'),
        'notification_queue_usage', pg_notification_queue_usage(),
        'connections', (SELECT sum(numbackends) FROM pg_stat_database),
        'max_connections', current_setting('max_connections')::integer,
        'started_at', {us(pg_postmaster_start_time())})
)::text
