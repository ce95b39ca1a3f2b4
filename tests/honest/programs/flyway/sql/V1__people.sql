CREATE TABLE person (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, nick text NOT NULL, joined date);
CREATE TABLE visit (id bigint NOT NULL, person bigint REFERENCES person, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE visit_2026 PARTITION OF visit FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO person (nick, joined) SELECT 'n' || n, '2026-01-01'::date + n FROM generate_series(1, 200) AS n;
INSERT INTO visit SELECT n, n, '2026-01-01'::date + n FROM generate_series(1, 200) AS n;
