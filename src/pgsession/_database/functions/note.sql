-- Collects what a statement changed in a setting of the transaction, and sends it whenever a payload is full: bounded
-- memory, and no transition table. After 500 payloads in a transaction (about 100,000 sessions) 'A' says it shorter than
-- the rest would. What is replicated is sent row by row: apply workers of logical replication fire no statement triggers, and
-- forget settings after each row.
CREATE FUNCTION {note}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET trace_notify = off AS $pgsession$
DECLARE
    noted text := coalesce(current_setting('pgsession.noted', true), '');
    sent integer := coalesce(nullif(current_setting('pgsession.noted_payloads', true), ''), '0')::integer;
    item text := ' ' || CASE TG_OP WHEN 'DELETE' THEN {deleted(OLD.id)} ELSE {changed(NEW.id, NEW.version)} END;
BEGIN
    IF TG_RELID <> {sessions_oid} THEN
        {refuse_table};
    END IF;
    IF sent > 500 THEN
        RETURN NULL;
    END IF;
    IF current_setting('session_replication_role') = 'replica' THEN
        PERFORM pg_notify({channel}, {plain_sender} || CASE sent WHEN 500 THEN ' A' ELSE item END),
                set_config('pgsession.noted_payloads', (sent + 1)::text, true);
        RETURN NULL;
    END IF;
    IF length(noted) + length(item) > 7900 THEN
        sent := sent + 1;
        PERFORM pg_notify({channel}, {plain_sender} || CASE WHEN sent <= 500 AND noted ~ {items} THEN noted ELSE ' A' END),
                set_config('pgsession.noted_payloads', sent::text, true);
        noted := '';
    END IF;
    PERFORM set_config('pgsession.noted', CASE WHEN sent > 500 THEN '' ELSE noted || item END, true);
    RETURN NULL;
END $pgsession$;
