-- Sends items in payloads of at most 7,999 bytes.
CREATE FUNCTION {announce}(origin text, items text[], a_payload integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    FOR start IN 1 .. coalesce(cardinality(items), 0) BY a_payload LOOP
        PERFORM pg_notify({channel}, origin || ' ' || array_to_string(items[start : start + a_payload - 1], ' '));
    END LOOP;
END $pgsession$;
