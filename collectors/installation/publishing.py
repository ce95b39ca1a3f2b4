"""Which tables' updates may be published, asked as PostgreSQL itself asks; and the job that keeps to the answer.

There are two publications. `pgwitness_inserts` publishes inserts and truncates, which never make anything fail: of all
tables where a superuser installed, else of those that are listed. `pgwitness` publishes updates and deletes and lists
every table: while a table is in it, PostgreSQL refuses updates that it could not describe to a subscriber. So a table
is in it only while `usable` holds, which says what `CheckCmdReplicaIdentity` and `pub_contains_invalid_column` of
PostgreSQL's sources (15 to 18) ask of a table.

A partitioned table is in it as a whole when each partition is usable and a partition that is made later will be,
because the table itself has a primary key; else each usable partition is in it by itself. Both are published under the
root's name, because `pgwitness_inserts` publishes the root.

`pgwitness.publish` puts tables in and takes them out, one a call and so one a transaction: the application's own
transactions never wait for a publication. It takes no lock that others would wait behind: what is not to be had at once
is tried again. tests/collectors/test_covering.py and test_publishing.py try on PostgreSQL what is claimed here.
"""

from __future__ import annotations

from collectors.installation.sql.templates import (
    BEACON,
    BEACON_EACH,
    BEACON_TREE,
    BEACONS,
    MIXED,
    PUBLICATION,
    PUBLICATION_INSERTS,
    SCHEMA,
    SCHEMA_OF_GUARD,
    SCHEMA_OF_MASKS,
    TREE,
    TRIGGER,
)

PUBLICATIONS = {PUBLICATION: "update,delete", PUBLICATION_INSERTS: "insert,truncate"}
"""What each of our publications publishes."""

PUBLISH_CONTROL = "publications"
"""What a control message says when an installation or the job changes what is published, in the same transaction."""

GENERATED_MIN = 180_000
"""The first version that can publish stored generated columns, and refuses updates whose identity holds others."""

LEAVES_LOCKED_MAX = 500
"""How many partitions are locked while the whole is added, so that none loses its key meanwhile; of more the next round
would see it."""

TURN = f"LOCK TABLE ONLY {SCHEMA}.covered IN SHARE UPDATE EXCLUSIVE MODE"
"""What only one run of the job at a time gets, and no ordinary role: an advisory lock is anybody's to hold for ever.

DDL that covers a table writes into the registry all the same, and vacuum passes it over for so long.
"""

LENT = "pgwitness: lent FULL, had "
"""How the comment of a table's trigger begins while it is lent an identity; the letter it had follows (pg_class).

A comment survives a crash, is in nobody's publication, and goes with the trigger.
"""

EACH = "each"
PARTITION = "partition"
TAKEN = "taken"
"""The trigger's argument, with which its beacon speaks with each statement: on a table of which not everything is
published, on a partition (what names it alone is published by nobody, or not once it is detached), on a table that DDL
has just taken out of the publication or made unlogged. Without an argument a transaction speaks once. On a table with
others below it the argument is `TREE` or `MIXED`."""

_CALLED = {name: f"to_regprocedure('{SCHEMA}.{name}()')" for name in BEACONS}

_BELOW = f"('{TREE}', '{MIXED}')"


def ours(trigger: str) -> str:
    """Write the condition that a row of pg_trigger calls one of our functions."""
    return f"{trigger}.tgfoid IN ({', '.join(_CALLED.values())})"


def form(trigger: str) -> str:
    """Write the argument of our trigger, a row of pg_trigger; empty without one, `?` where another function has it."""
    argument = f"split_part(encode({trigger}.tgargs, 'escape'), E'\\\\000', 1)"
    name = f"CASE WHEN {trigger}.tgnargs = 0 THEN '{BEACON}' WHEN {argument} IN {_BELOW} THEN '{BEACON_TREE}'"
    right = f"{trigger}.tgfoid = to_regprocedure(concat('{SCHEMA}.', {name} ELSE '{BEACON_EACH}' END, '()'))"
    return f"CASE WHEN {right} THEN {argument} WHEN {trigger}.tgfoid IS NOT NULL THEN '?' END"


def called(argument: str) -> str:
    """Write the expression that gives the function, with its argument, of a trigger in a form (an expression)."""
    named = f"CASE WHEN {argument} IN {_BELOW} THEN '{BEACON_TREE}' ELSE '{BEACON_EACH}' END"
    return f"CASE {argument} WHEN '' THEN '{BEACON}()' ELSE format('%s(%L)', {named}, {argument}) END"


def wanted_form(inserts_all: str, published: str = "j.published") -> str:
    """Write the argument that belongs on the trigger of a row of `judged`, where it is `published` or not."""
    unread = f"(NOT {published} OR NOT {inserts_all} AND j.root IS NULL AND NOT j.inserts)"
    return f"""CASE WHEN NOT j.logged THEN '{TAKEN}'
                WHEN j.relkind = 'p' THEN CASE WHEN j.unlogged OR NOT {inserts_all} AND j.root IS NULL
                    AND NOT j.inserts THEN '{MIXED}' ELSE '{TREE}' END
                WHEN j.parent THEN CASE WHEN {unread} THEN '{MIXED}' ELSE '{TREE}' END
                WHEN {unread} THEN '{EACH}' WHEN j.root IS NOT NULL THEN '{PARTITION}' ELSE '' END"""


_STORED_UNPUBLISHED = f"""(pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= {GENERATED_MIN}
        AND (SELECT pg_catalog.bool_or(pg_catalog.to_jsonb(p) ->> 'pubgencols' = 'n')
            FROM pg_catalog.pg_publication AS p WHERE p.pubname = '{PUBLICATION}'))"""
"""The column is not there before 18, hence its name as a text; until 17 generated columns are no obstacle."""


def usable(table: str, *, installed: bool) -> str:
    """Write the condition on a row of pg_class, named `table`, that its rows' updates can be published.

    With `installed` by our publications as they are, else as an installation makes them. Stored generated columns can
    be published since 18, and ours are then; virtual ones never can be.
    """
    stored = f" OR a.attgenerated = 's' AND {_STORED_UNPUBLISHED}" if installed else ""
    columns = f"""SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = {table}.oid
                AND (a.attgenerated = 'v'{stored})"""
    return f"""(CASE {table}.relreplident
        WHEN 'n' THEN false
        WHEN 'f' THEN NOT EXISTS ({columns} AND a.attnum > 0 AND NOT a.attisdropped)
        ELSE EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = {table}.oid
            AND i.indisvalid AND i.indislive AND i.indisunique AND i.indimmediate AND i.indpred IS NULL
            AND CASE {table}.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END
            AND NOT EXISTS ({columns} AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1])))
        END)"""


def primary(table: str) -> str:
    """Write the condition on a row of pg_class that partitions made in it get a primary key that names their rows."""
    return f"""({table}.relreplident IN ('d', 'f') AND EXISTS (SELECT FROM pg_catalog.pg_index AS i
        WHERE i.indrelid = {table}.oid AND i.indisprimary AND i.indimmediate))"""


def judged(one: str | None = None, *, installed: bool = True) -> str:
    """Write the common table expressions that end in `judged`: every table that may be covered, one a row.

    `usable`: its updates could be published (of a partitioned one: those of every partition). `wanted`: it belongs into
    the update publication itself. `updates` and `inserts`: it is listed in our publications. `published`: all its
    updates are. `lent`: the identity it had when it was lent FULL. `form` and `enabled`: its trigger's argument and
    tgenabled, null without one. `parent`: others inherit from it. `unlogged`: a partition of its root is not `logged`.
    `one`, an expression of type oid, restricts it to a table and the tree of partitions it is in.
    """
    around = listed = ""
    if one is not None:
        # An array, because PostgreSQL then looks each up by its index instead of reading whole catalogues.
        tree = f"""= ANY (ARRAY(SELECT ({one})::oid UNION SELECT t.relid::oid FROM pg_partition_tree(({one})) AS t
                UNION SELECT t.relid::oid FROM pg_partition_tree(pg_partition_root(({one}))) AS t))"""
        around, listed = f"\n            AND c.oid {tree}", f" AND r.prrelid {tree}"
    return f"""
    member AS (
        SELECT r.prrelid AS oid, bool_or(p.pubname = '{PUBLICATION}') AS updates,
            bool_or(p.pubname = '{PUBLICATION_INSERTS}') AS inserts
        FROM pg_publication_rel AS r JOIN pg_publication AS p ON p.oid = r.prpubid
        WHERE p.pubname IN ('{PUBLICATION}', '{PUBLICATION_INSERTS}'){listed} GROUP BY 1
    ), base AS MATERIALIZED (
        SELECT c.oid, c.relname, n.nspname, c.relkind, c.relowner, c.relreplident, c.relpersistence = 'u' AS unlogged,
            c.relkind = 'r' AND c.relhassubclass
                AND EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhparent = c.oid) AS parent,
            CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid END AS root,
            {usable("c", installed=installed)} AS usable, {primary("c")} AS keyed_by_root,
            coalesce(m.updates, false) AS updates, coalesce(m.inserts, false) AS inserts
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN member AS m ON m.oid = c.oid
        WHERE c.relkind IN ('r', 'p') AND (c.relpersistence = 'p' OR c.relpersistence = 'u' AND c.relispartition)
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', '{SCHEMA}', '{SCHEMA_OF_GUARD}',
                '{SCHEMA_OF_MASKS}')
            AND n.nspname !~ '^pg_(toast|temp)'{around}
    ), roots AS (
        SELECT r.oid, r.keyed_by_root AND coalesce(bool_and(l.usable AND NOT l.unlogged), true) AS wanted,
            coalesce(bool_and(l.usable) FILTER (WHERE NOT l.unlogged), r.keyed_by_root) AS usable,
            r.updates OR coalesce(bool_and(l.updates) FILTER (WHERE NOT l.unlogged), false) AS published, r.updates,
            coalesce(bool_or(l.unlogged), false) AS unlogged
        FROM base AS r LEFT JOIN base AS l ON l.root = r.oid AND l.relkind = 'r'
        WHERE r.relkind = 'p' AND r.root IS NULL GROUP BY r.oid, r.keyed_by_root, r.updates
    ), judged AS (
        SELECT b.oid, b.nspname, b.relname, b.relkind, b.relowner, b.relreplident, b.root, b.updates, b.inserts,
            b.parent, coalesce(r.unlogged, false) AS unlogged, NOT b.unlogged AS logged,
            CASE WHEN b.relkind = 'r' THEN b.usable AND NOT b.unlogged ELSE coalesce(r.usable, false) END AS usable,
            CASE WHEN b.relkind = 'p' THEN b.root IS NULL AND r.wanted
                WHEN b.root IS NULL THEN b.usable
                ELSE b.usable AND NOT b.unlogged AND NOT coalesce(r.wanted, false) END AS wanted,
            CASE WHEN b.relkind = 'p' THEN coalesce(r.published, false)
                ELSE NOT b.unlogged AND (b.updates OR coalesce(r.updates, false)) END AS published,
            substring(obj_description(t.oid, 'pg_trigger') FROM '^{LENT}([di])$') AS lent,
            {form("t")} AS form, t.tgenabled AS enabled, t.tgqual IS NOT NULL AS conditional
        FROM base AS b LEFT JOIN roots AS r ON r.oid = coalesce(b.root, b.oid)
        LEFT JOIN pg_trigger AS t ON t.tgrelid = b.oid AND t.tgname = '{TRIGGER}' AND {ours("t")}
        WHERE NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass
            AND d.objid = b.oid AND d.deptype = 'e')
    )"""


DUE = f"""
    due AS (
        SELECT j.oid, j.nspname, j.relname, j.root, j.relkind, CASE
            WHEN j.updates AND NOT j.usable THEN 1
            WHEN k.relation IS NULL THEN 9
            WHEN NOT p.puballtables AND j.root IS NULL AND NOT j.inserts THEN 2
            WHEN j.wanted AND NOT j.updates THEN 3
            WHEN j.updates AND NOT j.wanted AND j.published
                AND NOT EXISTS (SELECT FROM judged AS l WHERE l.root = j.oid AND l.wanted AND NOT l.updates) THEN 4
            WHEN j.lent IS NOT NULL AND (j.relreplident <> 'f' OR {primary("j")}) THEN 5
            WHEN j.enabled = 'A' AND j.form <> {wanted_form("p.puballtables")} THEN 6
            ELSE 9 END AS what, {wanted_form("p.puballtables")} AS form
        FROM judged AS j LEFT JOIN {SCHEMA}.covered AS k ON k.relation = j.oid
        CROSS JOIN (SELECT bool_or(p.puballtables) AS puballtables FROM pg_publication AS p
            WHERE p.pubname = '{PUBLICATION_INSERTS}') AS p
    )"""
"""What the job has to do to a table, the most urgent first; 9 is nothing.

1: its updates fail now: out. 2: its inserts are not read (no superuser installed). 3: in. 4: published by others: out.
5: its own key is back: what was lent is given back. 6: the trigger's form.
"""


def create_publication(name: str, version: int, *, all_tables: bool) -> str:
    """Create one of our publications; without `all_tables` it is empty."""
    of_all = " FOR ALL TABLES" if all_tables else ""
    return f"CREATE PUBLICATION {name}{of_all} WITH ({publication_options(name, version)})"


def publication_options(name: str, version: int, operations: str | None = None) -> str:
    """Write the options of one of our publications; generated columns must be published alike by both.

    `operations`, where it is to publish something else meanwhile.
    """
    generated = ", publish_generated_columns = stored" if version >= GENERATED_MIN else ""
    return f"publish = '{operations or PUBLICATIONS[name]}', publish_via_partition_root = true{generated}"


NARROW = f"""\
DO $pgwitness$ BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel AS r JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
        JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid
        WHERE p.pubname = '{PUBLICATION}' AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_publication AS i LEFT JOIN pg_catalog.pg_publication_rel AS x ON x.prpubid = i.oid
            WHERE i.pubname = '{PUBLICATION_INSERTS}' AND (i.puballtables
                OR x.prrelid = CASE WHEN c.relispartition THEN pg_catalog.pg_partition_root(c.oid) ELSE c.oid END))
    ) THEN
        PERFORM {SCHEMA}.control('{PUBLISH_CONTROL}');
        ALTER PUBLICATION {PUBLICATION} SET (OPTIONS);
    END IF;
END $pgwitness$"""
"""Takes inserts and truncates out of the update publication, once the other one has every table of it."""


def narrow(version: int) -> str:
    """Write the statement that lets the update publication publish updates and deletes alone."""
    return NARROW.replace("OPTIONS", publication_options(PUBLICATION, version))


def _alter(name: str, change: str) -> str:
    """Write the statement, inside our functions, that puts the found table into a publication or takes it out."""
    return f"EXECUTE format('ALTER PUBLICATION {name} {change} TABLE ONLY %s', found.name)"


PUBLISH_BODY = f"""
#variable_conflict use_column
DECLARE
    found record;
    leaf text;
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN;
    ELSIF only_this IS NOT NULL THEN
        {TURN};
    ELSE
        BEGIN
            {TURN} NOWAIT;
        EXCEPTION WHEN lock_not_available THEN
            state := SQLSTATE;
            problem := SQLERRM;
            RETURN NEXT;
            RETURN;
        END;
        DELETE FROM {SCHEMA}.covered AS k WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = k.relation);
        WITH {judged()},{DUE}
        SELECT d.oid INTO only_this FROM due AS d JOIN pg_class AS c ON c.oid = d.oid
        WHERE d.what < 9 AND d.oid <> ALL (skip) AND (d.what = 1 OR behind IS NULL
            OR age(c.xmin) > pg_snapshot_xmax(pg_current_snapshot())::text::int8 - behind::text::int8)
        ORDER BY d.what, d.relkind = 'p', d.oid LIMIT 1;
    END IF;
    FOR found IN
        WITH {judged("only_this")},{DUE}
        SELECT d.oid, d.what, format('%I.%I', d.nspname, d.relname) AS name, d.relkind, d.form FROM due AS d
        WHERE d.what < 9 AND d.oid = only_this
    LOOP
        relation := found.oid;
        name := found.name;
        what := found.what;
        BEGIN
            EXECUTE format('LOCK TABLE ONLY %s IN %s MODE NOWAIT', found.name, CASE found.what
                WHEN 5 THEN 'ACCESS EXCLUSIVE' WHEN 6 THEN 'SHARE ROW EXCLUSIVE' ELSE 'SHARE UPDATE EXCLUSIVE' END);
            IF found.what = 3 AND found.relkind = 'p' AND (SELECT count(*) FROM pg_partition_tree(found.oid))
                <= {LEAVES_LOCKED_MAX} THEN
                FOR leaf IN SELECT format('%I.%I', n.nspname, c.relname) FROM pg_partition_tree(found.oid) AS t
                    JOIN pg_class AS c ON c.oid = t.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
                    WHERE c.relkind = 'r'
                LOOP
                    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE NOWAIT', leaf);
                END LOOP;
            END IF;
            -- Asked again under the lock: DDL that was committed meanwhile may have changed the answer.
            IF (found.what, found.form) IS DISTINCT FROM (WITH {judged("found.oid")},{DUE}
                SELECT (d.what, d.form) FROM due AS d WHERE d.oid = found.oid) THEN
                state := '40001';
                problem := 'it has changed meanwhile';
            ELSE
                IF found.what < 5 THEN
                    PERFORM {SCHEMA}.control('{PUBLISH_CONTROL}');
                END IF;
                IF found.what = 1 AND NOT EXISTS (SELECT FROM pg_publication AS p
                    LEFT JOIN pg_publication_rel AS r ON r.prpubid = p.oid
                    WHERE p.pubname = '{PUBLICATION_INSERTS}' AND (p.puballtables OR r.prrelid = found.oid)) THEN
                    {_alter(PUBLICATION_INSERTS, "ADD")};
                END IF;
                CASE found.what
                    WHEN 1, 4 THEN
                        {_alter(PUBLICATION, "DROP")};
                    WHEN 2 THEN
                        {_alter(PUBLICATION_INSERTS, "ADD")};
                    WHEN 3 THEN
                        {_alter(PUBLICATION, "ADD")};
                    WHEN 5 THEN
                        IF EXISTS (SELECT FROM pg_class AS c WHERE c.oid = found.oid AND c.relreplident = 'f') THEN
                            EXECUTE format('ALTER TABLE ONLY %s REPLICA IDENTITY DEFAULT', found.name);
                        END IF;
                        EXECUTE format('COMMENT ON TRIGGER {TRIGGER} ON %s IS NULL', found.name);
                    WHEN 6 THEN
                        EXECUTE format('CREATE OR REPLACE TRIGGER {TRIGGER}'
                            ' AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s'
                            ' FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.%s', found.name,
                            {called("found.form")});
                        EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER {TRIGGER}', found.name);
                END CASE;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            state := SQLSTATE;
            problem := SQLERRM;
        END;
        RETURN NEXT;
    END LOOP;
END
"""
"""Does one thing to one table, the most urgent, and says which; with `only_this` to that one, never to one of `skip`.

Where it is not its turn it says so, without a table.

A table that was made or changed by a transaction not before `behind` is left alone, unless its updates fail: somebody
is still at work on it, and would wait for our lock. Every statement in it is PostgreSQL's own about a table named by
the catalogue: what its callers choose is the order.
"""

SIGNATURE = f"{SCHEMA}.publish(oid, oid[], xid8)"

CREATE_PUBLISH = (
    f"CREATE OR REPLACE FUNCTION {SCHEMA}.publish(only_this oid, skip oid[], behind xid8 DEFAULT NULL,\n"
    f"    OUT relation oid, OUT name text, OUT what int, OUT state text, OUT problem text)\n"
    f"RETURNS SETOF record LANGUAGE plpgsql SECURITY DEFINER\n"
    f"SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' SET client_min_messages = 'error'\n"
    f"AS $pgwitness${PUBLISH_BODY}$pgwitness$"
)


def publish_now(table: str) -> str:
    """Write the statement with which an installation lets the job do all it has to do to one table (quoted)."""
    literal = table.replace("'", "''")
    return f"""\
DO $pgwitness$ DECLARE did record; BEGIN
    FOR step IN 1..3 LOOP
        SELECT * INTO did FROM {SCHEMA}.publish('{literal}'::pg_catalog.regclass, '{{}}');
        EXIT WHEN NOT FOUND;
        IF did.problem IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = did.state, MESSAGE = did.problem;
        END IF;
    END LOOP;
END $pgwitness$"""
