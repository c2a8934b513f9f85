-- The name of a channel, which nobody can know or guess who may not read the secret; where there is no secret yet, one is made.
CREATE FUNCTION {name_channel}(label text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
DECLARE
    labelled bytea := convert_to(label, 'UTF8');
BEGIN
    PERFORM {incarnate}();
    RETURN (SELECT {channel_name(i.secret, labelled)} FROM {incarnation} i);
END $pgsession$;
