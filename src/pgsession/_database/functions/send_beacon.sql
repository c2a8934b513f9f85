-- Sends a beacon, an event without items, unless one began at or after "since", the xmax of a read that the sender wants proved.
-- So of many nodes that ask at the same moment one sends: the others find the row locked, or what it says. Who insists sends in any
-- case. "began" is true where a beacon that proves the read is committed, or is with this transaction.
CREATE FUNCTION {send_beacon}(node text, since xid8, insists boolean, OUT now bigint, OUT began boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    SELECT b.xid >= since INTO began FROM {beacon} b;
    IF NOT FOUND THEN
        INSERT INTO {beacon} (xid) VALUES ('0') ON CONFLICT (single) DO NOTHING;
    END IF;
    IF insists OR began IS NOT TRUE THEN
        PERFORM FROM {beacon} b WHERE b.xid < since FOR UPDATE SKIP LOCKED;
        IF FOUND THEN
            UPDATE {beacon} SET xid = pg_current_xact_id();
        END IF;
        IF FOUND OR insists THEN
            PERFORM pg_notify({channel}, {sender(node)});
            began := true;
        END IF;
    END IF;
    now := {us(clock_timestamp())};
    began := began IS TRUE;
END $pgsession$;
