"""What a database that has no pgwitness needs before it takes a dump of one that has; a text, nothing is run here.

The beacon's triggers belong to the application's tables and stand in every dump; what they call is in none. PostgreSQL
has no way to leave triggers out of a dump, so something that does nothing has to be there under that name. Where
pgwitness is, the text changes nothing; an installation later replaces what it made.
"""

from __future__ import annotations

from collectors.installation.sql.templates import BEACON_TREE, BEACONS, SCHEMA

STUB = (
    f"DO $stub$ BEGIN IF to_regprocedure('{SCHEMA}.{BEACON_TREE}()') IS NULL THEN"
    f" CREATE SCHEMA IF NOT EXISTS {SCHEMA}; GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC;"
    + "".join(
        f" IF to_regprocedure('{SCHEMA}.{name}()') IS NULL THEN CREATE FUNCTION {SCHEMA}.{name}() RETURNS trigger"
        " LANGUAGE plpgsql AS $f$BEGIN RETURN NULL; END$f$; END IF;"
        for name in BEACONS
    )
    + " END IF; END $stub$;"
)
"""One line. A trigger's arguments are no arguments of its function, so it serves every form of the trigger."""
