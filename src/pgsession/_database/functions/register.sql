-- Enters a node among those that serve sessions from memory, or says that it is still there; returns how many there are, and the
-- longest that one of them serves unheard, in microseconds.
CREATE FUNCTION {register}(name text, serves bigint, OUT registered bigint, OUT longest bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    PERFORM set_config('pgsession.own', 'on', true);
    INSERT INTO {nodes} AS n (node, serves_for) VALUES (name, serves * interval '1 microsecond')
    -- Of the processes of a host each that leads says this by the same name: one that is late must not say less than another has.
    ON CONFLICT (node) DO UPDATE SET
        serves_for = greatest(n.serves_for, excluded.serves_for),
        registered_at = greatest(n.registered_at, excluded.registered_at);
    SELECT count(*), {us(max(n.serves_for))} INTO registered, longest FROM {nodes} n;
END $pgsession$;
