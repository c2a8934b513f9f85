-- An attribute's version is the session version that last wrote it. The update of the session fires its triggers, which
-- announce it. An attribute whose session is not there is taken as it is: a dump is loaded in the order of the tables' names,
-- and a logical replica may apply the row of a session that is already gone there.
CREATE FUNCTION {attribute_edited}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    raised bigint;
BEGIN
    IF TG_RELID <> {attributes_oid} THEN
        {refuse_table};
    END IF;
    IF TG_OP <> 'INSERT' AND (TG_OP = 'DELETE' OR OLD.session_id <> NEW.session_id) THEN
        UPDATE {sessions} SET version = version + 1 WHERE id = OLD.session_id;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    UPDATE {sessions} SET version = version + 1 WHERE id = NEW.session_id RETURNING version INTO raised;
    NEW.version := coalesce(raised, greatest(NEW.version, 1));  -- 0 means that there is none
    RETURN NEW;
END $pgsession$;
