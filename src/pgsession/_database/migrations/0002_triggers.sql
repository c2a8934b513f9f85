-- C12: what plain SQL changes reaches every node. Our own transactions set pgsession.own and announce for themselves.

-- Sends items in payloads of at most 7,999 bytes. An item about one session is at most 53 bytes long with its space.
CREATE FUNCTION {announce}(origin text, items text[], a_payload integer DEFAULT 140) RETURNS void
LANGUAGE plpgsql AS $pgsession$
BEGIN
    FOR start IN 1 .. coalesce(cardinality(items), 0) BY a_payload LOOP
        PERFORM pg_notify({channel}, origin || ' ' || array_to_string(items[start : start + a_payload - 1], ' '));
    END LOOP;
END $pgsession$;

-- A version never comes back and always means the same contents (C4). greatest(): a logical replica applies versions
-- that are already raised.
CREATE FUNCTION {raise_version}() RETURNS trigger LANGUAGE plpgsql AS $pgsession$
BEGIN
    IF NEW.id <> OLD.id THEN
        RAISE EXCEPTION 'the id of a session cannot be changed' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    NEW.version := greatest(NEW.version, OLD.version + 1);
    IF NEW.updated_at = OLD.updated_at THEN
        NEW.updated_at := clock_timestamp();
    END IF;
    RETURN NEW;
END $pgsession$;

-- Collects what a statement changed in a setting of the transaction, and sends it whenever a payload is full: bounded
-- memory, and no transition table, whose capture our own writes would pay for. After 500 payloads in a transaction
-- (about 100,000 sessions) 'A' says it shorter than the rest would.
CREATE FUNCTION {note}() RETURNS trigger LANGUAGE plpgsql AS $pgsession$
DECLARE
    noted text := coalesce(current_setting('pgsession.noted', true), '');
    sent integer := coalesce(nullif(current_setting('pgsession.noted_payloads', true), ''), '0')::integer;
    item text := CASE TG_OP
        WHEN 'DELETE' THEN ' d' || encode(uuid_send(OLD.id), 'hex')
        ELSE ' u' || encode(uuid_send(NEW.id), 'hex') || ':' || NEW.version END;
BEGIN
    IF sent > 500 THEN
        RETURN NULL;
    END IF;
    IF length(noted) + length(item) > 7900 THEN
        sent := sent + 1;
        PERFORM pg_notify({channel}, {plain} || CASE WHEN sent > 500 THEN ' A' ELSE noted END),
                set_config('pgsession.noted_payloads', sent::text, true);
        noted := '';
    END IF;
    PERFORM set_config('pgsession.noted', CASE WHEN sent > 500 THEN '' ELSE noted || item END, true);
    RETURN NULL;
END $pgsession$;

CREATE FUNCTION {send_noted}() RETURNS trigger LANGUAGE plpgsql AS $pgsession$
BEGIN
    IF current_setting('pgsession.noted', true) <> '' THEN
        PERFORM pg_notify({channel}, {plain} || current_setting('pgsession.noted', true)),
                set_config('pgsession.noted', '', true);
    END IF;
    RETURN NULL;
END $pgsession$;

-- For ours and plain SQL alike: the attributes of a deleted session go, and its locks end, which their holders are told.
CREATE FUNCTION {after_delete}() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_mergejoin = off SET jit = off AS $pgsession$
DECLARE
    own text := coalesce(current_setting('pgsession.own', true), '');
    ended text[];
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    DELETE FROM {attributes} a USING gone g WHERE a.session_id = g.id;
    WITH l AS (DELETE FROM {locks} l USING gone g WHERE l.session_id = g.id RETURNING l.resource, l.token)
    SELECT array_agg('L' || encode(convert_to(resource, 'UTF8'), 'hex') || ':' || token) INTO ended FROM l;
    PERFORM {announce}({plain}, ended, 7);
    PERFORM set_config('pgsession.own', own, true);
    RETURN NULL;
END $pgsession$;

CREATE FUNCTION {after_truncate}() RETURNS trigger LANGUAGE plpgsql AS $pgsession$
DECLARE
    own text := coalesce(current_setting('pgsession.own', true), '');
    ended text[];
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    IF TG_ARGV[0] = 'sessions' THEN
        TRUNCATE {attributes};
        WITH l AS (DELETE FROM {locks} WHERE session_id IS NOT NULL RETURNING resource, token)
        SELECT array_agg('L' || encode(convert_to(resource, 'UTF8'), 'hex') || ':' || token) INTO ended FROM l;
        PERFORM {announce}({plain}, ended, 7);
    ELSE
        UPDATE {sessions} SET version = version + 1, updated_at = clock_timestamp();
    END IF;
    PERFORM pg_notify({channel}, {plain} || ' A');
    PERFORM set_config('pgsession.own', own, true);
    RETURN NULL;
END $pgsession$;

-- An attribute's version is the session version that last wrote it. The update of the session fires its triggers, which
-- announce it.
CREATE FUNCTION {attribute_edited}() RETURNS trigger LANGUAGE plpgsql AS $pgsession$
DECLARE
    raised bigint;
BEGIN
    IF TG_OP <> 'INSERT' AND (TG_OP = 'DELETE' OR OLD.session_id <> NEW.session_id) THEN
        UPDATE {sessions} SET version = version + 1 WHERE id = OLD.session_id;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    UPDATE {sessions} SET version = version + 1 WHERE id = NEW.session_id RETURNING version INTO raised;
    -- A logical replica may apply the row of a session that is already gone there: that must not stop its worker.
    IF raised IS NULL AND current_setting('session_replication_role') <> 'replica' THEN
        RAISE EXCEPTION 'there is no session %', NEW.session_id USING ERRCODE = 'foreign_key_violation';
    END IF;
    NEW.version := coalesce(raised, NEW.version);
    RETURN NEW;
END $pgsession$;

-- The holder of a lock that an operator removes is told.
CREATE FUNCTION {lock_removed}() RETURNS trigger LANGUAGE plpgsql AS $pgsession$
BEGIN
    PERFORM pg_notify({channel}, {plain} || ' L' || encode(convert_to(OLD.resource, 'UTF8'), 'hex') || ':' || OLD.token);
    RETURN NULL;
END $pgsession$;

CREATE TRIGGER pgsession_1_version BEFORE UPDATE ON {sessions} FOR EACH ROW
    WHEN (current_setting('pgsession.own', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION {raise_version}();
CREATE TRIGGER pgsession_2_note AFTER INSERT OR UPDATE OR DELETE ON {sessions} FOR EACH ROW
    WHEN (current_setting('pgsession.own', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION {note}();
CREATE TRIGGER pgsession_3_send AFTER INSERT OR UPDATE OR DELETE ON {sessions} FOR EACH STATEMENT
    WHEN (current_setting('pgsession.own', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION {send_noted}();
CREATE TRIGGER pgsession_4_gone AFTER DELETE ON {sessions} REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
    EXECUTE FUNCTION {after_delete}();
CREATE TRIGGER pgsession_5_truncate AFTER TRUNCATE ON {sessions} FOR EACH STATEMENT
    EXECUTE FUNCTION {after_truncate}('sessions');
CREATE TRIGGER pgsession_1_version BEFORE INSERT OR UPDATE OR DELETE ON {attributes} FOR EACH ROW
    WHEN (current_setting('pgsession.own', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION {attribute_edited}();
CREATE TRIGGER pgsession_5_truncate AFTER TRUNCATE ON {attributes} FOR EACH STATEMENT
    WHEN (current_setting('pgsession.own', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION {after_truncate}('attributes');
CREATE TRIGGER pgsession_1_removed AFTER DELETE ON {locks} FOR EACH ROW
    WHEN (current_setting('pgsession.own', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION {lock_removed}();

-- Without ALWAYS, session_replication_role = replica and logical apply workers would pass unseen.
ALTER TABLE {sessions} ENABLE ALWAYS TRIGGER pgsession_1_version;
ALTER TABLE {sessions} ENABLE ALWAYS TRIGGER pgsession_2_note;
ALTER TABLE {sessions} ENABLE ALWAYS TRIGGER pgsession_3_send;
ALTER TABLE {sessions} ENABLE ALWAYS TRIGGER pgsession_4_gone;
ALTER TABLE {sessions} ENABLE ALWAYS TRIGGER pgsession_5_truncate;
ALTER TABLE {attributes} ENABLE ALWAYS TRIGGER pgsession_1_version;
ALTER TABLE {attributes} ENABLE ALWAYS TRIGGER pgsession_5_truncate;
ALTER TABLE {locks} ENABLE ALWAYS TRIGGER pgsession_1_removed;
