-- serves_from: 1

-- The tables. No index on version, updated_at or last_accessed: an update and a noted access must stay HOT updates, which is
-- also what the free space of the fill factors is for. "C" collation: the order of code points, as in Python.

-- What a column may hold is said by its type. A CHECK of a table is parsed anew by every statement that writes it, which took a
-- sixth of what the server computes for one update; a domain's once a connection, and only for the columns that are written.

-- An index row takes no more than 2,700 bytes.
CREATE DOMAIN {short_text} AS text COLLATE "C" CONSTRAINT at_most_512_bytes CHECK (octet_length(VALUE) <= 512);
-- An infinite time has no number of microseconds: a statement that reads many sessions would fail for all of them.
CREATE DOMAIN {finite_time} AS timestamptz CONSTRAINT is_finite CHECK (isfinite(VALUE));
-- What a node can reckon with, and what is not over at once.
CREATE DOMAIN {idle_timeout} AS interval
    CONSTRAINT inactivity_range CHECK (VALUE BETWEEN interval '1 second' AND interval '36500 days');

CREATE TABLE {sessions} (
    -- A handle, for logs and pages: it lets nobody in, as the token does.
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Rises with every saved change. Begins at the microseconds of the clock, so that no earlier row of this id had it; a trigger sees to that for plain SQL.
    version bigint NOT NULL,
    -- Which of the session's tokens is current: 64 random bits, for a counter would be given out again after a restore.
    generation bigint NOT NULL DEFAULT {random_bigint},
    -- The version at which its user last changed, or at which it was created.
    owner_since bigint NOT NULL,
    created_at {finite_time} NOT NULL DEFAULT clock_timestamp(),
    -- The last saved change.
    updated_at {finite_time} NOT NULL DEFAULT clock_timestamp(),
    -- The last noted access that was written: nodes write theirs in batches.
    last_accessed {finite_time} NOT NULL DEFAULT clock_timestamp(),
    -- The absolute end, whatever the accesses.
    expires_at {finite_time} NOT NULL,
    -- Null: an anonymous session, of a visitor who has not logged in.
    user_id {short_text},
    group_id {short_text},
    -- The idle timeout, for each session its own, so that nodes with other settings agree; null: none. In hours, not days: a
    -- trigger sees to that for plain SQL, for a day is as long as the time zone says.
    inactivity {idle_timeout} DEFAULT interval '48 hours',
    -- The tokens of before the last rotation, good until then.
    previous_generation bigint,
    previous_until {finite_time},
    rotated_at {finite_time},
    PRIMARY KEY (id)
) WITH (fillfactor = 80);

-- With the id, so that any number of sessions can be walked in bounded steps, in the order in which rows are locked.
CREATE INDEX ON {sessions} (user_id, id) WHERE user_id IS NOT NULL;
CREATE INDEX ON {sessions} (group_id, id) WHERE group_id IS NOT NULL;
CREATE INDEX ON {sessions} (expires_at);

-- No foreign key: its checks cost more than the write, and a dump may be loaded in any order. Triggers keep the two
-- tables together.
CREATE TABLE {attributes} (
    session_id uuid NOT NULL,
    -- The version of the session that last wrote it.
    version bigint NOT NULL DEFAULT 0,
    -- Null: with its session.
    expires_at {finite_time},
    key {short_text} NOT NULL,
    value json NOT NULL,
    PRIMARY KEY (session_id, key)
) WITH (fillfactor = 80);

CREATE INDEX ON {attributes} (expires_at) WHERE expires_at IS NOT NULL;

-- Fencing tokens: one sequence for every resource, so that a token never comes back, also when the row is long gone.
-- Not owned by the column, or TRUNCATE ... RESTART IDENTITY would start it again.
CREATE SEQUENCE {fencing} AS bigint NO CYCLE;

-- One row a resource that is locked, or whose lease ran out and that nobody wanted since.
CREATE TABLE {locks} (
    resource {short_text} NOT NULL,
    owner uuid NOT NULL,
    -- For fencing: it rises with each holder.
    token bigint NOT NULL DEFAULT nextval({fencing_oid}),
    -- The session that it ends with; null: none.
    session_id uuid,
    acquired_at timestamptz NOT NULL,
    -- The lease is over then, unless its holder renews it.
    expires_at {finite_time} NOT NULL,
    PRIMARY KEY (resource)
) WITH (fillfactor = 50);

CREATE INDEX ON {locks} (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX ON {locks} (expires_at);

-- One row. Crash recovery and promotion empty an unlogged table; any other restart shows in started_at, a copy of the database or
-- of the table in its place. From the secret follow the names of the channels: only the owner reads it.
CREATE UNLOGGED TABLE {incarnation} (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    incarnation uuid NOT NULL,
    system_identifier bigint NOT NULL,
    started_at timestamptz NOT NULL,
    -- The table's file: the database's oid, and a number that the table gets anew when it is rewritten.
    place text NOT NULL,
    secret bytea NOT NULL,
    -- What nodes proved that were registered before, they had proved by then.
    began_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- The first one: nobody was there before.
INSERT INTO {incarnation} (incarnation, system_identifier, started_at, place, secret, began_at)
SELECT gen_random_uuid(), c.system_identifier, pg_postmaster_start_time(), {incarnation_place}, {random_secret}, 'epoch'
FROM pg_control_system() c;

-- The nodes that serve sessions from memory, each for so long without a sign of life, and the last transaction whose
-- events each has applied. Unlogged: after a crash no node serves what it had.
CREATE UNLOGGED TABLE {nodes} (
    node text COLLATE "C" PRIMARY KEY,
    -- For how long it may serve from memory unheard: max_staleness and stale_if_error.
    serves_for interval NOT NULL,
    acknowledged xid8 NOT NULL DEFAULT '0',
    -- Its last sign of life.
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- One row: the transaction of the newest beacon. Unlogged, as the incarnation: after a crash transaction ids may be given out again.
CREATE UNLOGGED TABLE {beacon} (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    xid xid8 NOT NULL
) WITH (fillfactor = 50);

-- Rows to lock: buckets 0 to 1,023 for users by their hash, -1 for the cleanup. Who has no rights on this table cannot
-- hold up anybody, as he could with advisory locks, whose keys are visible.
CREATE TABLE {buckets} (bucket integer PRIMARY KEY);
INSERT INTO {buckets} SELECT generate_series(-1, 1023);
