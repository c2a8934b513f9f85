-- Relations, domains and functions of our names: name, owner, whether the current role is the owner or a member of it, and whether it
-- is the table of the versions. That a superuser may do all that others may does not make it his.
WITH RECURSIVE n AS (SELECT oid FROM pg_namespace WHERE nspname = {schema}),
own(oid) AS (
    SELECT oid FROM pg_roles WHERE rolname = current_user
    UNION SELECT m.roleid FROM pg_auth_members m JOIN own ON m.member = own.oid
), x AS (
    SELECT c.relname AS name, c.relowner AS owner, c.relkind = 'r' AND starts_with((
        SELECT string_agg(a.attname, ',' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), 'version,name,serves_from,applied_at') AS has_versions
    FROM pg_class c JOIN n ON c.relnamespace = n.oid WHERE c.relname = ANY ({relations})
    UNION ALL
    SELECT t.typname, t.typowner, false
    FROM pg_type t JOIN n ON t.typnamespace = n.oid WHERE t.typname = ANY ({domains})
    UNION ALL
    SELECT p.proname, p.proowner, false
    FROM pg_proc p JOIN n ON p.pronamespace = n.oid WHERE p.proname = ANY ({functions})
)
SELECT x.name, pg_get_userbyid(x.owner), x.owner IN (SELECT oid FROM own), x.has_versions, current_user
FROM x ORDER BY x.name
