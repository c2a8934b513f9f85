-- What there is of our tables, functions and triggers, and whether a role may do with them what it must: see Found in
-- pgsession._database.inspection. A table or function is ours by its name and by belonging to the owner of the sessions.
WITH n AS MATERIALIZED (SELECT oid FROM pg_namespace WHERE nspname = {schema}),
c AS MATERIALIZED (
    SELECT w.short, c.oid, c.relowner FROM (VALUES {relations}) w(short, schema, name, columns)
    JOIN pg_namespace m ON m.nspname = w.schema
    JOIN pg_class c ON c.relname = w.name AND c.relnamespace = m.oid AND c.relkind IN ('r', 'S')
), t AS MATERIALIZED (
    SELECT w.short, w.columns, c.oid, c.oid::regclass::text AS label, c.relowner
    FROM (VALUES {relations}) w(short, schema, name, columns)
    LEFT JOIN c ON c.short = w.short AND c.relowner = (SELECT relowner FROM c WHERE short = 'sessions')
), f AS MATERIALIZED (
    SELECT w.short, w.called, p.oid, p.oid::regprocedure::text AS label,
           coalesce(p.proacl, acldefault('f', p.proowner)) AS acl
    FROM (VALUES {functions}) w(short, name, called)
    LEFT JOIN pg_proc p ON p.proname = w.name AND p.pronamespace = (SELECT oid FROM n)
        AND p.proowner = (SELECT relowner FROM t WHERE short = 'sessions')
), g AS MATERIALIZED (
    SELECT concat(w.name, ' on ', t.label) AS label, r.oid, r.tgenabled
    FROM (VALUES {triggers}) w(short, name) JOIN t ON t.short = w.short AND t.oid IS NOT NULL
    LEFT JOIN pg_trigger r ON r.tgrelid = t.oid AND r.tgname = w.name AND NOT r.tgisinternal
)
SELECT 'role'::text AS kind, quote_ident({role}) AS name,
       (SELECT quote_ident(pg_get_userbyid(relowner)) FROM t WHERE short = 'sessions') AS label, true AS allowed,
       (SELECT pg_get_userbyid(t.relowner) = {role} OR r.rolsuper OR t.relowner = d.datdba OR pg_has_role(r.oid, m.nspowner, 'MEMBER')
            OR NOT EXISTS (
                SELECT FROM aclexplode(coalesce(m.nspacl, acldefault('n', m.nspowner))) a LEFT JOIN pg_roles o ON o.oid = a.grantee
                WHERE a.privilege_type = 'CREATE' AND a.grantee NOT IN (t.relowner, m.nspowner) AND o.rolsuper IS NOT TRUE)
        FROM t JOIN pg_roles r ON r.oid = t.relowner, n JOIN pg_namespace m ON m.oid = n.oid, pg_database d
        WHERE t.short = 'sessions' AND d.datname = current_database()) AS sound
UNION ALL
SELECT 'schema', {schema}, quote_ident({schema}), has_schema_privilege({role}, n.oid, 'USAGE'), true FROM n
UNION ALL
SELECT 'table', t.short, t.label,
       CASE WHEN t.columns IS NULL OR t.oid IS NULL THEN true
            WHEN t.columns = '{{}}' THEN has_table_privilege({role}, t.oid, 'SELECT')
            ELSE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attname = ANY (t.columns)
                             AND NOT has_column_privilege({role}, t.oid, a.attnum, 'SELECT')) END, true
FROM t
UNION ALL
SELECT 'function', f.short, f.label, NOT f.called OR f.oid IS NULL OR has_function_privilege({role}, f.oid, 'EXECUTE'),
       f.oid IS NULL OR NOT EXISTS (SELECT FROM aclexplode(f.acl) a WHERE a.grantee = 0)
FROM f
UNION ALL
SELECT 'trigger', g.label, CASE WHEN g.oid IS NOT NULL THEN g.label END, true, (g.tgenabled = 'A') IS TRUE FROM g
