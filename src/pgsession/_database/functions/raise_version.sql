-- A version never comes back and always means the same contents (C4). greatest(): a logical replica applies versions
-- that are already raised.
CREATE FUNCTION {raise_version}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    IF TG_RELID <> {sessions_oid} THEN
        {refuse_table};
    END IF;
    IF NEW.id <> OLD.id THEN
        RAISE EXCEPTION 'the id of a session cannot be changed' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    NEW.version := greatest(NEW.version, OLD.version + 1);
    IF NEW.user_id <> OLD.user_id THEN
        NEW.owner_since := NEW.version;
    END IF;
    IF NEW.updated_at = OLD.updated_at THEN
        NEW.updated_at := clock_timestamp();
    END IF;
    RETURN NEW;
END $pgsession$;
