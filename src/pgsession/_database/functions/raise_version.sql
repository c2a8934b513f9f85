-- A version never comes back and always means the same contents (C4): those of a row begin at the clock, above all that an
-- earlier row of this id had. greatest(): a dump and a logical replica bring versions that are already raised.
CREATE FUNCTION {raise_version}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    IF TG_RELID <> {sessions_oid} THEN
        {refuse_table};
    END IF;
    NEW.inactivity := extract(epoch FROM NEW.inactivity) * interval '1 second';
    IF TG_OP = 'INSERT' THEN
        NEW.version := greatest(NEW.version, {us(clock_timestamp())});
        NEW.owner_since := NEW.version;
        RETURN NEW;
    END IF;
    IF NEW.id <> OLD.id THEN
        RAISE EXCEPTION 'the id of a session cannot be changed' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    NEW.version := greatest(NEW.version, OLD.version + 1);
    IF NEW.user_id IS DISTINCT FROM OLD.user_id THEN
        NEW.version := greatest(NEW.version, {us(clock_timestamp())});
        NEW.owner_since := NEW.version;
    ELSE
        NEW.owner_since := greatest(NEW.owner_since, OLD.owner_since);
    END IF;
    IF NEW.updated_at = OLD.updated_at THEN
        NEW.updated_at := clock_timestamp();
    END IF;
    RETURN NEW;
END $pgsession$;
