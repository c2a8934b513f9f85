-- Sends items in payloads of at most 7,999 bytes. Who has looked at the incarnation's row gives the channel's name; else null.
CREATE FUNCTION {announce}(events text, origin text, items text[], a_payload integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    done boolean;
BEGIN
    IF items IS NOT NULL AND events IS NULL THEN
        events := {channel};
    END IF;
    FOR start IN 1 .. coalesce(cardinality(items), 0) BY a_payload LOOP
        done := pg_notify(events, {sender(origin)} || ' ' || array_to_string(items[start : start + a_payload - 1], ' ')) IS NULL;
    END LOOP;
END $pgsession$;
