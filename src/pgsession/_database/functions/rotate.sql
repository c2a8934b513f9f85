-- Gives the sessions whose updates were written new generations, and users, unless somebody was faster; returns the numbers of
-- those that ask for it. What it sets is no part of the statement that updates, of which most rotate nothing. The version goes on
-- at the clock, above all that were ever given out: one that a crash has lost says nothing of the new generation or owner.
CREATE FUNCTION {rotate}(ids uuid[], written bigint[], flags integer[], new_generations bigint[], base_generations bigint[],
    graces bigint[], users text[], moment timestamptz) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgsession$
BEGIN
    UPDATE {sessions} s SET version = greatest(s.version, {us(moment)}), generation = r.generation, rotated_at = moment,
        previous_generation = CASE WHEN r.grace > 0 THEN s.generation END,
        previous_until = CASE WHEN r.grace > 0 THEN moment + r.grace * interval '1 microsecond' END,
        user_id = CASE r.flags & {change_user} WHEN 0 THEN s.user_id ELSE nullif(r.user_id, '') END,
        owner_since = CASE WHEN r.flags & {change_user} <> 0 AND nullif(r.user_id, '') IS DISTINCT FROM s.user_id
                      THEN greatest(s.version, {us(moment)}) ELSE s.owner_since END
    FROM unnest(ids, flags, new_generations, base_generations, graces, users)
        WITH ORDINALITY r(id, flags, generation, base, grace, user_id, i)
    WHERE s.id = ANY (ids) AND s.id = r.id AND r.i = ANY (written) AND r.generation <> {none} AND s.generation = r.base;
    RETURN ARRAY(SELECT r.i FROM unnest(new_generations) WITH ORDINALITY r(generation, i)
                 WHERE r.generation <> {none} AND r.i = ANY (written));
END $pgsession$;
