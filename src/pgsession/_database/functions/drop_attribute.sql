-- The same walk as delete_many's, for one attribute of a user's sessions: each that had it goes to its next version, and is in ended.
CREATE FUNCTION {drop_attribute}(node text, subject text, attribute text, after uuid, size integer, waiting boolean,
                                 OUT last uuid, OUT changed bigint, OUT skipped bigint, OUT ended bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_mergejoin = off SET jit = off
AS $pgsession$
DECLARE
    page uuid[];
    held uuid[];
    had uuid[];
    versions bigint[];
    moment timestamptz;
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    page := {page}('user'::text, subject, NULL::uuid, after, size);
    last := page[cardinality(page)];
    held := {hold}(page, 'user'::text, subject, waiting);
    skipped := coalesce(cardinality(page), 0) - coalesce(cardinality(held), 0);
    moment := clock_timestamp();
    WITH d AS (
        DELETE FROM {attributes} a WHERE a.session_id = ANY (held) AND a.key = attribute RETURNING a.session_id, a.expires_at
    ), u AS (
        UPDATE {sessions} s SET version = s.version + 1, updated_at = moment
        FROM d WHERE s.id = d.session_id AND (d.expires_at > moment) IS NOT FALSE RETURNING s.id, s.version
    )
    SELECT array_agg(u.id), array_agg(u.version), string_agg(uuid_send(u.id), '') INTO had, versions, ended FROM u;
    changed := coalesce(cardinality(had), 0);
    PERFORM {announce_many}(node, false, 'u'::text, had, versions);
END $pgsession$;
