-- Of a shard that Citus moves from server to server: true where the sessions are here, and stay until the transaction ends, for the
-- move waits for this lock before it lets anybody write elsewhere. Raised is what a standby says: nothing was done, and another
-- server has to be found. So it is on a table that has just come, until its triggers are there.
CREATE FUNCTION {fence}() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    PERFORM lock_shard_metadata(5, ARRAY[{shard}]::bigint[]);  -- SHARE, as for each write of Citus itself
    IF NOT EXISTS (SELECT FROM pg_dist_placement p JOIN pg_dist_local_group l ON l.groupid = p.groupid WHERE p.shardid = {shard})
       OR NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = {sessions_oid} AND t.tgname = 'pgsession_5_truncate') THEN
        RAISE EXCEPTION 'this shard has moved to another server' USING ERRCODE = 'read_only_sql_transaction';
    END IF;
    RETURN true;
END $pgsession$;
