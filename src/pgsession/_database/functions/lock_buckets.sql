-- Locks the buckets of users until the transaction ends; returns the numbers of those whose bucket somebody else has. '' is
-- nobody, who has no bucket.
CREATE FUNCTION {lock_buckets}(users text[], waiting boolean) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    wanted integer[] := ARRAY(SELECT DISTINCT {bucket(u.user_id)} FROM unnest(users) u(user_id) WHERE u.user_id <> '');
    held integer[];
BEGIN
    IF waiting THEN
        held := ARRAY(SELECT b.bucket FROM {buckets} b WHERE b.bucket = ANY (wanted) ORDER BY b.bucket FOR NO KEY UPDATE);
        IF cardinality(held) < cardinality(wanted) THEN  -- somebody has removed them
            INSERT INTO {buckets} SELECT unnest(wanted) ON CONFLICT DO NOTHING;
            held := ARRAY(SELECT b.bucket FROM {buckets} b WHERE b.bucket = ANY (wanted) ORDER BY b.bucket FOR NO KEY UPDATE);
        END IF;
    ELSE
        held := ARRAY(SELECT b.bucket FROM {buckets} b WHERE b.bucket = ANY (wanted) ORDER BY b.bucket
                      FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    IF cardinality(held) = cardinality(wanted) THEN
        RETURN NULL;
    END IF;
    IF NOT waiting THEN  -- likewise, for the next time
        INSERT INTO {buckets} SELECT w.bucket FROM unnest(wanted) w(bucket)
        WHERE NOT EXISTS (SELECT FROM {buckets} b WHERE b.bucket = w.bucket) ON CONFLICT DO NOTHING;
    END IF;
    RETURN ARRAY(SELECT u.i FROM unnest(users) WITH ORDINALITY u(user_id, i)
                 WHERE u.user_id <> '' AND {bucket(u.user_id)} <> ALL (held));
END $pgsession$;
