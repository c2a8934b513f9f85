-- Makes another secret, for the owner: every channel has another name from then on. A transaction that has read a name holds ACCESS
-- SHARE on the table until it ends, so nothing is sent on the old name after the notification that it has moved. A long
-- transaction, of pg_dump say, is not waited for. Emptied, not updated: what began in a snapshot of before finds no row, and fails
-- to serialize where it would have read the old name.
CREATE FUNCTION {rotate_secret}() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $pgsession$
DECLARE
    own text := coalesce(current_setting('pgsession.own', true), '');
    kept uuid;
    began timestamptz;
BEGIN
    LOCK TABLE {incarnation} IN ACCESS EXCLUSIVE MODE;
    PERFORM pg_notify({channel}, {plain_sender} || {moved});
    SELECT i.incarnation, i.began_at INTO kept, began FROM {incarnation} i;
    TRUNCATE {incarnation};
    PERFORM set_config('pgsession.own', 'on', true);
    INSERT INTO {incarnation} (incarnation, system_identifier, started_at, place, secret, began_at)
    SELECT kept, c.system_identifier, pg_postmaster_start_time(), {incarnation_place}, {random_secret}, began FROM pg_control_system() c;
    PERFORM set_config('pgsession.own', own, true);
END $pgsession$;
