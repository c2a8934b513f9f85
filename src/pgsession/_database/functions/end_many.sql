-- Deletes sessions that the transaction has locked; null: none. Many of them some at a time, with rests: whoever writes meanwhile,
-- and finds the processors busy, waits for a part of the work and not for all of it.
CREATE FUNCTION {end_many}(ids uuid[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    rests boolean := cardinality(ids) > 64 AND has_function_privilege('pg_sleep(double precision)', 'EXECUTE');  -- some take it from all
BEGIN
    FOR start IN 1 .. coalesce(cardinality(ids), 0) BY 64 LOOP
        IF rests THEN
            PERFORM pg_sleep(0.0005);  -- which is a millisecond
        END IF;
        PERFORM {end_sessions}(ids[start : start + 63]);
    END LOOP;
END $pgsession$;
