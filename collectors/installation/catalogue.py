"""Reads from the catalogues what stands in a source database and what pgwitness has put there; changes nothing.

`read` gives the `State` that `planning` decides on and `status` shows. Everything in it is visible to any role, so
that the collectors' own role can report it, too.
"""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from msgspec import Struct

from collectors.installation import publishing
from collectors.installation.sql import covering, emission, key_templates, templates
from collectors.installation.sql.ddl_templates import EVENT_TRIGGERS
from pgwitness.core.events import qualified

Connection = psycopg.Connection[tuple[Any, ...]]


class Table(Struct, frozen=True, kw_only=True):
    """A table that can carry a beacon, ordinary or partitioned.

    `root` is the topmost partitioned table it is a partition of. `keyed`: updates and deletes can be published, that
    is, it (and each of its partitions) has a usable replica identity; `logged`: its rows are in the WAL, as all are but
    those of an unlogged partition. `published`: its updates are, all of them, and `due`: the job has something to do to
    it. `trigger`: `tgenabled` of our trigger, None without one: `A` always, `O` only in origin, `D` disabled, `R` only
    in replicas; `form`: its argument (`publishing`), and `form_wanted` the one it should have once its updates are
    published where they can be. `conditional`: the trigger has a WHEN clause, as earlier installations made it.
    `publications` are ours that list it. `registered`: it stands in pgwitness.covered. `lent`: the identity it had when
    it was lent FULL. `owned`: who asks has its owner's rights.
    """

    schema: str
    name: str
    partitioned: bool = False
    root: str | None = None
    keyed: bool = True
    logged: bool = True
    published: bool = False
    due: bool = False
    identity: str = "d"
    trigger: str | None = None
    form: str = ""
    form_wanted: str = ""
    conditional: bool = False
    publications: tuple[str, ...] = ()
    registered: bool = False
    lent: str | None = None
    owner: str = ""
    owned: bool = True

    @property
    def qualified(self) -> str:
        """The table's name as events carry it, which is also how SQL quotes it."""
        return qualified(self.schema, self.name)


class Publication(Struct, frozen=True, kw_only=True):
    """One of our publications as it is. `stored`: stored generated columns are published (never before 18).

    `asked` are the globs of the tables that were asked for, which stand in the comment; None where none stand there.
    """

    operations: str
    all_tables: bool = False
    by_root: bool = True
    stored: bool = False
    asked: tuple[str, ...] | None = None


class Role(Struct, frozen=True, kw_only=True):
    """What the collectors' role may do; `replication` also through rds_replication."""

    login: bool = False
    replication: bool = False
    monitor: bool = False
    superuser: bool = False


class State(Struct, frozen=True, kw_only=True):
    """A database as `install` found it.

    `statements` is false where pg_stat_statements is loaded and only its extension is missing. Of the owner's role:
    `owner_member`: who asks belongs to it; `owner_monitor`: it sees sessions; `owner_able`: it may read the key, call
    its functions and write messages; `guard_granted`: it may set the guard. `guard_setting` is the guard's value here
    and now, which must be empty for the guard to work. `functions` are the bodies of our functions by name, as they are
    in the first generation; `generation` is the one they are of (`key_templates`); `foreign` those that are not a
    superuser's although they should be. `strays` are tables with our trigger that cannot be covered any more: unlogged
    ones, members of extensions. Of our tables, `hidden` are those in the form that nobody else can read or
    change; `key_whole`: there is a key of this generation and cluster, as far as who asks can see. `keeper` is an
    extension that may hold what is ours, so that dumps leave it out, and `kept` says that it holds everything. `slots`
    are ours on this database, and whether one is in use. `elsewhere` are those of our roles that other databases need.
    `event_triggers`: ours by name, with `evtenabled` where they run our function on their event, else `-`;
    `may_see_ddl`: who asks may make them. `may_publish`: the collectors may run the job. `made` is what installations
    made or gave in the cluster (`role NAME`, `replication NAME`, `pg_monitor NAME`), `made_here` in this database; None
    where an earlier one did not write it down. `messages_open`: everybody may write messages, as PostgreSQL comes;
    `message_granted`: the owner's role was given that right itself. `may_guard`: who asks may grant the guard;
    `may_create`: it may make schemas and publications here. `rds`: Amazon's roles are there. `open`: everybody may
    call what is everybody's, `claim`.
    """

    version: int
    database: str
    system_id: str
    user: str
    superuser: bool
    wal_level: str
    statements: bool = True
    owner_exists: bool = False
    owner_member: bool = False
    owner_monitor: bool = False
    owner_able: bool = False
    guard_granted: bool = False
    may_guard: bool = False
    guard_setting: str = ""
    collector: Role | None = None
    schema: bool = False
    relations: tuple[str, ...] = ()
    functions: dict[str, str] = {}
    generation: int = 1
    hidden: tuple[str, ...] = ()
    key_whole: bool = True
    keeper: str | None = None
    kept: bool = True
    foreign: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    publications: dict[str, Publication] = {}
    tables: tuple[Table, ...] = ()
    strays: tuple[Table, ...] = ()
    slots: tuple[tuple[str, bool], ...] = ()
    elsewhere: tuple[str, ...] = ()
    event_triggers: dict[str, str] = {}
    may_see_ddl: bool = False
    may_publish: bool = False
    made: tuple[str, ...] | None = None
    made_here: tuple[str, ...] = ()
    may_create: bool = True
    rds: bool = False
    open: bool = False
    messages_open: bool = True
    message_granted: bool = False

    @property
    def guarded(self) -> bool:
        """Whether the beacon can speak once in a transaction here, rather than with each statement."""
        return self.guard_setting == "" and (self.guard_granted or self.may_guard)


_SERVER = """\
SELECT current_setting('server_version_num')::int, current_database(), (pg_control_system()).system_identifier::text,
    current_user, r.rolsuper, current_setting('wal_level'), current_setting(%(guard)s),
    current_setting('pg_stat_statements.track', true) IS NULL
        OR EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements'),
    has_parameter_privilege(%(guard)s, 'SET WITH GRANT OPTION'), has_database_privilege(current_database(), 'CREATE'),
    EXISTS (SELECT FROM pg_roles AS a WHERE a.rolname = 'rds_replication')
FROM pg_roles AS r WHERE r.rolname = current_user"""

_OWNER = """\
SELECT pg_has_role(current_user, o.oid, 'USAGE') AND pg_has_role(current_user, o.oid, %(take)s),
    has_parameter_privilege(o.oid, %(guard)s, 'SET'),
    pg_has_role(o.oid, 'pg_read_all_stats', 'USAGE')
FROM pg_roles AS o WHERE o.rolname = %(owner)s"""

_OWNER_ABLE = """\
SELECT has_function_privilege(%(owner)s, 3577::oid, 'EXECUTE') AND coalesce((
    SELECT bool_and(has_schema_privilege(%(owner)s, n.oid, 'USAGE') AND has_table_privilege(%(owner)s, c.oid, 'SELECT'))
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'S')), false) AND coalesce((
    SELECT bool_and(has_function_privilege(%(owner)s, p.oid, 'EXECUTE'))
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s AND pg_get_userbyid(p.proowner) = %(owner)s), true)"""

_KEEPER = """\
SELECT e.extname::text FROM pg_extension AS e
WHERE pg_has_role(current_user, e.extowner, 'USAGE') AND e.extname = 'plpgsql'"""

_ROLE = """\
SELECT r.rolcanlogin,
    r.rolreplication OR EXISTS (SELECT FROM pg_roles AS p WHERE p.rolname = 'rds_replication'
        AND pg_has_role(r.oid, p.oid, 'USAGE')),
    pg_has_role(r.oid, 'pg_monitor', 'USAGE'), r.rolsuper
FROM pg_roles AS r WHERE r.rolname = %(role)s"""

_RELATIONS = """\
SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'v', 'S') ORDER BY 1"""

_FUNCTIONS = """\
SELECT p.proname, p.prosrc FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s"""

_HIDDEN = """\
SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname IN ('key', 'covered') AND c.relkind = 'r' AND c.relpersistence = 'u'
    AND c.relrowsecurity AND (c.relname <> 'key' OR EXISTS (SELECT FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attname = 'made_lsn' AND NOT a.attisdropped)) ORDER BY 1"""

_KEY_WHOLE = f"""\
SELECT EXISTS (SELECT FROM {templates.SCHEMA}.key AS k, pg_control_system() AS control
    WHERE k.number = %s AND k.system_id = control.system_identifier::text)"""

_KEPT = f"""\
SELECT coalesce(bool_and(thing.member AND thing.fresh), true)
FROM ({key_templates.THINGS}) AS thing"""

_GRANTS = """\
SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind = 'r' AND has_table_privilege(%(role)s, c.oid, 'SELECT')
    AND has_schema_privilege(%(role)s, n.oid, 'USAGE')
    AND (NOT c.relrowsecurity OR EXISTS (SELECT FROM pg_policy AS p, pg_roles AS r WHERE p.polrelid = c.oid
        AND p.polpermissive AND p.polcmd IN ('r', '*') AND r.rolname = %(role)s AND r.oid = ANY (p.polroles)))
UNION ALL
SELECT p.proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = 'renew_key' AND has_function_privilege(%(role)s, p.oid, 'EXECUTE')
ORDER BY 1"""

_PUBLICATIONS = """\
SELECT p.pubname::text, concat_ws(',', CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END,
    CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubtruncate THEN 'truncate' END),
    puballtables, pubviaroot, coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false),
    obj_description(p.oid, 'pg_publication')
FROM pg_publication AS p WHERE pubname = ANY (%(publications)s)"""

_FOREIGN = """\
SELECT p.proname::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_roles AS o ON o.oid = p.proowner
WHERE n.nspname = %(schema)s AND p.proname IN ('keep', 'logged', 'publish') AND NOT o.rolsuper"""

_STRAYS = """\
SELECT n.nspname, c.relname, t.tgenabled, c.oid = ANY (%(registered)s::oid[])
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_proc AS f ON f.oid = t.tgfoid
WHERE t.tgname = %(trigger)s AND f.pronamespace = to_regnamespace(%(schema)s) ORDER BY 1, 2"""
"""Among them unlogged tables and members of extensions, which are none that can be covered."""

_SLOTS = """\
SELECT slot_name, active FROM pg_replication_slots
WHERE database = current_database() AND plugin = 'pgoutput' AND slot_name LIKE 'pgwitness%%' ORDER BY 1"""

_ELSEWHERE = """\
SELECT DISTINCT r.rolname FROM pg_shdepend AS d JOIN pg_roles AS r ON r.oid = d.refobjid
WHERE d.refclassid = 'pg_authid'::regclass AND r.rolname IN (%(owner)s, %(role)s)
    AND d.dbid NOT IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"""

_EVENT_TRIGGERS = """\
SELECT e.evtname::text, CASE WHEN n.nspname = %(schema)s AND (e.evtname, e.evtevent, p.proname) IN (
        SELECT * FROM unnest(%(event_triggers)s::text[], %(events)s::text[], %(event_functions)s::text[]))
    AND (e.evttags IS NULL) = (p.proname = 'ddl' OR e.evtevent = 'sql_drop') THEN e.evtenabled::text ELSE '-' END
FROM pg_event_trigger AS e JOIN pg_proc AS p ON p.oid = e.evtfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE e.evtname = ANY (%(event_triggers)s)"""

_MAY_SEE_DDL = """\
SELECT r.rolsuper OR EXISTS (SELECT FROM pg_roles AS m
    WHERE m.rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin') AND pg_has_role(r.oid, m.oid, 'USAGE'))
FROM pg_roles AS r WHERE r.rolname = current_user"""
"""PostgreSQL lets superusers make event triggers; managed services let their own administrators, too."""

_MAY_PUBLISH = """\
SELECT has_function_privilege(%(role)s, p.oid, 'EXECUTE')
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = 'publish'"""

_MADE = """\
SELECT (SELECT shobj_description(o.oid, 'pg_authid') FROM pg_roles AS o WHERE o.rolname = %(owner)s),
    (SELECT obj_description(n.oid, 'pg_namespace') FROM pg_namespace AS n WHERE n.nspname = %(schema)s)"""

_OPEN = """\
SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = 'claim' AND has_schema_privilege('public', n.oid, 'USAGE')
    AND has_function_privilege('public', p.oid, 'EXECUTE')"""

_MESSAGES = """\
SELECT has_function_privilege('public', p.oid, 'EXECUTE'), EXISTS (SELECT FROM aclexplode(p.proacl) AS a, pg_roles AS r
    WHERE r.oid = a.grantee AND r.rolname = %(owner)s)
FROM pg_proc AS p WHERE p.oid = 3577"""

_TABLES = f"""\
WITH {publishing.judged(installed=False).replace("%", "%%")}
SELECT j.nspname, j.relname, j.relkind = 'p', CASE WHEN j.root IS NOT NULL THEN
        (SELECT quote_ident(rn.nspname) || '.' || quote_ident(rc.relname)
            FROM pg_class AS rc JOIN pg_namespace AS rn ON rn.oid = rc.relnamespace WHERE rc.oid = j.root) END,
    j.usable, j.logged, j.published, j.wanted AND NOT j.updates OR j.updates AND NOT j.wanted
        OR NOT j.inserts AND j.root IS NULL AND NOT %(inserts_all)s
        OR j.enabled = 'A' AND j.form <> {publishing.wanted_form("%(inserts_all)s")}, j.relreplident, j.enabled,
    coalesce(j.form, ''), {publishing.wanted_form("true", "j.usable")},
    coalesce(j.conditional, false), array_remove(ARRAY[CASE WHEN j.updates THEN '{templates.PUBLICATION}' END,
        CASE WHEN j.inserts THEN '{templates.PUBLICATION_INSERTS}' END], NULL),
    j.oid = ANY (%(registered)s::oid[]), j.lent, pg_get_userbyid(j.relowner),
    pg_has_role(current_user, j.relowner, 'USAGE')
FROM judged AS j ORDER BY 1, 2"""


def read(connection: Connection, role: str) -> State:
    """Read the state of the connection's database; `role` is the collectors' login role.

    Tables that are temporary, unlogged or part of an extension are left out: they have no rows in the WAL, or are not
    the user's. An unlogged partition is not: its rows are written through its root.
    """
    parameters: dict[str, Any] = {
        "guard": emission.GUARD,
        "owner": templates.OWNER,
        "role": role,
        "schema": templates.SCHEMA,
        "trigger": templates.TRIGGER,
        "publications": [templates.PUBLICATION, templates.PUBLICATION_INSERTS],
        "registered": registered(connection),
        "event_triggers": [*EVENT_TRIGGERS, *covering.EVENTS],
        "events": [*EVENT_TRIGGERS.values(), *covering.EVENTS.values()],
        "event_functions": [*("ddl" for _ in EVENT_TRIGGERS), *covering.FUNCTIONS.values()],
        # Since 16 a role may belong to another without the right to give it objects.
        "take": "SET" if connection.info.server_version >= 160_000 else "USAGE",
    }

    def rows(query: str) -> list[tuple[Any, ...]]:
        return connection.execute(query, parameters).fetchall()

    version, database, system_id, user, superuser, wal_level, guard_setting, statements, *may = rows(_SERVER)[0]
    publications = {row[0]: _publication(row) for row in rows(_PUBLICATIONS)}
    inserts = publications.get(templates.PUBLICATION_INSERTS)
    # A superuser's installation reads the inserts of all tables; nothing is to be listed then.
    parameters["inserts_all"] = superuser or (inserts is not None and inserts.all_tables)
    made, made_here = rows(_MADE)[0]
    owner = rows(_OWNER)
    roles = rows(_ROLE)
    tables = tuple(_table(row) for row in rows(_TABLES))
    covered = {table.qualified for table in tables}
    strays = [Table(schema=s, name=n, trigger=e, registered=r) for s, n, e, r in rows(_STRAYS)]
    functions = dict(rows(_FUNCTIONS))
    generation = key_templates.generation_of(functions.get("introduce", ""))
    hidden = tuple(name for (name,) in rows(_HIDDEN))
    keeper = rows(_KEEPER)
    messages = rows(_MESSAGES)[0]
    return State(
        version=version,
        database=database,
        system_id=system_id,
        user=user,
        superuser=superuser,
        wal_level=wal_level,
        statements=statements,
        owner_exists=bool(owner),
        owner_member=bool(owner) and owner[0][0],
        owner_able=bool(owner) and bool(rows(_OWNER_ABLE)[0][0]),
        owner_monitor=bool(owner) and owner[0][2],
        guard_granted=bool(owner) and owner[0][1],
        may_guard=superuser or may[0],
        may_create=may[1],
        rds=may[2],
        guard_setting=guard_setting,
        collector=Role(login=roles[0][0], replication=roles[0][1], monitor=roles[0][2], superuser=roles[0][3])
        if roles
        else None,
        schema=bool(rows("SELECT FROM pg_namespace WHERE nspname = %(schema)s")),
        relations=tuple(name for (name,) in rows(_RELATIONS)),
        functions={name: key_templates.plain(body) for name, body in functions.items()},
        generation=generation,
        hidden=hidden,
        key_whole="key" in hidden and key_whole(connection, generation),
        keeper=keeper[0][0] if keeper else None,
        kept=bool(rows(_KEPT)[0][0]),
        grants=tuple(name for (name,) in rows(_GRANTS)) if roles else (),
        foreign=tuple(name for (name,) in rows(_FOREIGN)),
        publications=publications,
        tables=tables,
        strays=tuple(table for table in strays if table.qualified not in covered),
        slots=tuple((name, active) for name, active in rows(_SLOTS)),
        elsewhere=tuple(name for (name,) in rows(_ELSEWHERE)),
        event_triggers=dict(rows(_EVENT_TRIGGERS)),
        may_see_ddl=bool(rows(_MAY_SEE_DDL)[0][0]),
        open=bool(rows(_OPEN)),
        may_publish=bool(roles) and any(may for (may,) in rows(_MAY_PUBLISH)),
        made=listed(made),
        made_here=listed(made_here) or (),
        messages_open=bool(messages[0]),
        message_granted=bool(messages[1]),
    )


def key_whole(connection: Connection, generation: int) -> bool:
    """Say whether there is a key of a generation and of this cluster; false where it may not be read."""
    if not _readable(connection, "key"):
        return False
    row = connection.execute(_KEY_WHOLE, (generation,)).fetchone()
    return row is not None and bool(row[0])


def registered(connection: Connection) -> list[int]:
    """Read the OIDs in the registry; none where there is no registry or it may not be read."""
    if not _readable(connection, "covered"):
        return []
    found = connection.execute(f"SELECT relation::oid::int8 FROM {templates.SCHEMA}.covered").fetchall()
    return [oid for (oid,) in found]


def _publication(row: tuple[Any, ...]) -> Publication:
    _, operations, all_tables, by_root, stored, comment = row
    return Publication(
        operations=operations, all_tables=all_tables, by_root=by_root, stored=stored, asked=listed(comment)
    )


def listed(comment: str | None) -> tuple[str, ...] | None:
    """Read the list that an installation has left in a comment; None where somebody has written another one."""
    try:
        return tuple(msgspec.json.decode(comment or "null", type=list[str]))
    except msgspec.MsgspecError:
        return None


def _readable(connection: Connection, table: str) -> bool:
    """Say whether a table of ours is there and may be read; an unlogged one is not on a standby."""
    found = connection.execute(
        "SELECT has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')"
        " AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (templates.SCHEMA, table),
    ).fetchone()
    return found is not None and bool(found[0])


def _table(row: tuple[Any, ...]) -> Table:
    return Table(
        schema=row[0],
        name=row[1],
        partitioned=row[2],
        root=row[3],
        keyed=row[4],
        logged=row[5],
        published=row[6],
        due=row[7],
        identity=row[8],
        trigger=row[9],
        form=row[10],
        form_wanted=row[11],
        conditional=row[12],
        publications=tuple(row[13]),
        registered=row[14],
        lent=row[15],
        owner=row[16],
        owned=row[17],
    )
