-- C12: what plain SQL changes reaches every node. Our own transactions set pgsession.own and announce for themselves.
-- Without ALWAYS, session_replication_role = replica and logical apply workers would pass unseen.

CREATE OR REPLACE TRIGGER pgsession_1_version BEFORE INSERT OR UPDATE ON {sessions} FOR EACH ROW
    WHEN ({plain_sql}) EXECUTE FUNCTION {raise_version}();
CREATE OR REPLACE TRIGGER pgsession_2_note AFTER INSERT OR UPDATE OR DELETE ON {sessions} FOR EACH ROW
    WHEN ({plain_sql}) EXECUTE FUNCTION {note}();
CREATE OR REPLACE TRIGGER pgsession_3_send AFTER INSERT OR UPDATE OR DELETE ON {sessions} FOR EACH STATEMENT
    WHEN ({plain_sql}) EXECUTE FUNCTION {send_noted}();
CREATE OR REPLACE TRIGGER pgsession_4_removed AFTER DELETE ON {sessions} FOR EACH ROW
    WHEN ({plain_sql}) EXECUTE FUNCTION {session_removed}();
CREATE OR REPLACE TRIGGER pgsession_5_truncate AFTER TRUNCATE ON {sessions} FOR EACH STATEMENT
    EXECUTE FUNCTION {truncated}('sessions');
CREATE OR REPLACE TRIGGER pgsession_1_version BEFORE INSERT OR UPDATE OR DELETE ON {attributes} FOR EACH ROW
    WHEN ({plain_sql}) EXECUTE FUNCTION {attribute_edited}();
CREATE OR REPLACE TRIGGER pgsession_5_truncate AFTER TRUNCATE ON {attributes} FOR EACH STATEMENT
    WHEN ({plain_sql}) EXECUTE FUNCTION {truncated}('attributes');
CREATE OR REPLACE TRIGGER pgsession_1_removed AFTER DELETE ON {locks} FOR EACH ROW
    WHEN ({plain_sql}) EXECUTE FUNCTION {lock_removed}();
CREATE OR REPLACE TRIGGER pgsession_5_truncate BEFORE TRUNCATE ON {locks} FOR EACH STATEMENT
    EXECUTE FUNCTION {truncated}('locks');
CREATE OR REPLACE TRIGGER pgsession_1_loaded BEFORE INSERT ON {incarnation} FOR EACH ROW
    WHEN ({plain_sql}) EXECUTE FUNCTION {row_loaded}();
CREATE OR REPLACE TRIGGER pgsession_1_loaded BEFORE INSERT ON {nodes} FOR EACH ROW
    WHEN ({plain_sql}) EXECUTE FUNCTION {row_loaded}();
CREATE OR REPLACE TRIGGER pgsession_1_loaded BEFORE INSERT ON {beacon} FOR EACH ROW
    WHEN ({plain_sql}) EXECUTE FUNCTION {row_loaded}();
CREATE OR REPLACE TRIGGER pgsession_1_loaded BEFORE INSERT ON {versions} FOR EACH ROW
    WHEN ({plain_sql}) EXECUTE FUNCTION {row_loaded}();
CREATE OR REPLACE TRIGGER pgsession_1_loaded BEFORE INSERT ON {buckets} FOR EACH ROW
    WHEN ({plain_sql}) EXECUTE FUNCTION {row_loaded}();

ALTER TABLE {sessions} ENABLE ALWAYS TRIGGER pgsession_1_version;
ALTER TABLE {sessions} ENABLE ALWAYS TRIGGER pgsession_2_note;
ALTER TABLE {sessions} ENABLE ALWAYS TRIGGER pgsession_3_send;
ALTER TABLE {sessions} ENABLE ALWAYS TRIGGER pgsession_4_removed;
ALTER TABLE {sessions} ENABLE ALWAYS TRIGGER pgsession_5_truncate;
ALTER TABLE {attributes} ENABLE ALWAYS TRIGGER pgsession_1_version;
ALTER TABLE {attributes} ENABLE ALWAYS TRIGGER pgsession_5_truncate;
ALTER TABLE {locks} ENABLE ALWAYS TRIGGER pgsession_1_removed;
ALTER TABLE {locks} ENABLE ALWAYS TRIGGER pgsession_5_truncate;
ALTER TABLE {incarnation} ENABLE ALWAYS TRIGGER pgsession_1_loaded;
ALTER TABLE {nodes} ENABLE ALWAYS TRIGGER pgsession_1_loaded;
ALTER TABLE {beacon} ENABLE ALWAYS TRIGGER pgsession_1_loaded;
ALTER TABLE {versions} ENABLE ALWAYS TRIGGER pgsession_1_loaded;
ALTER TABLE {buckets} ENABLE ALWAYS TRIGGER pgsession_1_loaded;
