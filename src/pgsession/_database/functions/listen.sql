-- Begins or ends listening to the channel of a label, and returns its name, by which the listener knows what it hears. In here, so
-- that the name is in no text of a statement: those can be read in the log and in pg_stat_activity.
CREATE FUNCTION {listen}(label text, begins boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    channel text := {name_channel}(label);
BEGIN
    EXECUTE format(CASE WHEN begins THEN 'LISTEN %I' ELSE 'UNLISTEN %I' END, channel);
    RETURN channel;
END $pgsession$;
