SET lock_timeout = '5s';
CREATE INDEX CONCURRENTLY person_nick ON person (nick);
CREATE UNIQUE INDEX CONCURRENTLY person_other ON person (id, nick);
REINDEX INDEX CONCURRENTLY person_nick;
DROP INDEX CONCURRENTLY person_other;
