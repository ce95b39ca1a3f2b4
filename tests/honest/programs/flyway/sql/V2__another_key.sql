ALTER TABLE visit DROP CONSTRAINT visit_person_fkey;
ALTER TABLE person DROP CONSTRAINT person_pkey;
UPDATE person SET nick = upper(nick) WHERE id % 10 = 0;
ALTER TABLE person ADD PRIMARY KEY (id);
ALTER TABLE visit ADD FOREIGN KEY (person) REFERENCES person NOT VALID;
ALTER TABLE visit VALIDATE CONSTRAINT visit_person_fkey;
ALTER TABLE person ADD COLUMN shown text GENERATED ALWAYS AS (lower(nick)) STORED;
