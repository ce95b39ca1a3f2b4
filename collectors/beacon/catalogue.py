"""Reads from the catalogues what stands in a source database and what pgwitness has put there; changes nothing.

`read` gives the `State` that `planning` decides on and `status` shows. Everything in it is visible to any role, so
that the collectors' own role can report it, too.
"""

from __future__ import annotations

from typing import Any

import psycopg
from msgspec import Struct

from collectors.beacon import emission, key_templates, templates
from collectors.beacon.ddl_templates import EVENT_TRIGGERS
from pgwitness.events import qualified

Connection = psycopg.Connection[tuple[Any, ...]]


class Table(Struct, frozen=True, kw_only=True):
    """A table that can carry a beacon, ordinary or partitioned.

    `root` is the topmost partitioned table it is a partition of. `keyed`: updates and deletes can be published, that
    is, it (and each of its partitions) has a usable replica identity. `trigger`: `tgenabled` of our trigger, None
    without one: `A` always, `O` only in origin, `D` disabled, `R` only in replicas. `conditional`: the trigger
    has a WHEN clause, as earlier installations made it. `publications` are ours that hold it. `registered`: it stands
    in pgwitness.covered. `owned`: who asks has its owner's rights.
    """

    schema: str
    name: str
    partitioned: bool = False
    root: str | None = None
    keyed: bool = True
    identity: str = "d"
    trigger: str | None = None
    conditional: bool = False
    publications: tuple[str, ...] = ()
    registered: bool = False
    owner: str = ""
    owned: bool = True

    @property
    def qualified(self) -> str:
        """The table's name as events carry it, which is also how SQL quotes it."""
        return qualified(self.schema, self.name)


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
    in the first generation; `generation` is the one they are of (`key_templates`). Of our tables, `hidden` are those in
    the form that nobody else can read or change; `key_whole`: there is a key of this generation and cluster, as far as
    who asks can see. `keeper` is an extension that may hold what is ours, so that dumps leave it out, and `kept` says
    that it holds everything. `slots` are
    ours on this database, and whether one is in use. `elsewhere` are those of our roles that other databases need.
    `event_triggers`: ours by name, with `evtenabled` where they run our function on their event, else `-`;
    `may_see_ddl`: who asks may make them. `messages_open`: everybody may write messages, as PostgreSQL comes;
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
    grants: tuple[str, ...] = ()
    publications: dict[str, str] = {}
    tables: tuple[Table, ...] = ()
    slots: tuple[tuple[str, bool], ...] = ()
    elsewhere: tuple[str, ...] = ()
    event_triggers: dict[str, str] = {}
    may_see_ddl: bool = False
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
SELECT pubname, concat_ws(',', CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END,
    CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubtruncate THEN 'truncate' END)
FROM pg_publication WHERE pubname = ANY (%(publications)s)"""

_SLOTS = """\
SELECT slot_name, active FROM pg_replication_slots
WHERE database = current_database() AND plugin = 'pgoutput' AND slot_name LIKE 'pgwitness%%' ORDER BY 1"""

_ELSEWHERE = """\
SELECT DISTINCT r.rolname FROM pg_shdepend AS d JOIN pg_roles AS r ON r.oid = d.refobjid
WHERE d.refclassid = 'pg_authid'::regclass AND r.rolname IN (%(owner)s, %(role)s)
    AND d.dbid NOT IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"""

_EVENT_TRIGGERS = """\
SELECT e.evtname::text, CASE WHEN p.proname = 'ddl' AND n.nspname = %(schema)s AND e.evttags IS NULL
    AND (e.evtname, e.evtevent) IN (('pgwitness_ddl', 'ddl_command_end'), ('pgwitness_drop', 'sql_drop'))
    THEN e.evtenabled::text ELSE '-' END
FROM pg_event_trigger AS e JOIN pg_proc AS p ON p.oid = e.evtfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE e.evtname = ANY (%(event_triggers)s)"""

_MAY_SEE_DDL = """\
SELECT r.rolsuper OR EXISTS (SELECT FROM pg_roles AS m
    WHERE m.rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin') AND pg_has_role(r.oid, m.oid, 'USAGE'))
FROM pg_roles AS r WHERE r.rolname = current_user"""
"""PostgreSQL lets superusers make event triggers; managed services let their own administrators, too."""

_OPEN = """\
SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = 'claim' AND has_schema_privilege('public', n.oid, 'USAGE')
    AND has_function_privilege('public', p.oid, 'EXECUTE')"""

_MESSAGES = """\
SELECT has_function_privilege('public', p.oid, 'EXECUTE'), EXISTS (SELECT FROM aclexplode(p.proacl) AS a, pg_roles AS r
    WHERE r.oid = a.grantee AND r.rolname = %(owner)s)
FROM pg_proc AS p WHERE p.oid = 3577"""

_TABLES = """\
WITH keyed AS (
    SELECT c.oid, CASE c.relreplident
        WHEN 'f' THEN true
        WHEN 'd' THEN EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary
            AND i.indisvalid AND i.indimmediate)
        WHEN 'i' THEN EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisreplident
            AND i.indisvalid AND i.indimmediate)
        ELSE false END AS keyed
    FROM pg_class AS c WHERE c.relkind IN ('r', 'p')
)
SELECT n.nspname, c.relname, c.relkind = 'p',
    CASE WHEN c.relispartition THEN
        (SELECT quote_ident(rn.nspname) || '.' || quote_ident(rc.relname)
            FROM pg_class AS rc JOIN pg_namespace AS rn ON rn.oid = rc.relnamespace
            WHERE rc.oid = pg_partition_root(c.oid)) END,
    k.keyed AND NOT EXISTS (SELECT FROM pg_partition_tree(c.oid) AS leaf JOIN keyed AS l ON l.oid = leaf.relid
        WHERE c.relkind = 'p' AND leaf.isleaf AND NOT l.keyed),
    c.relreplident, t.tgenabled, t.tgqual IS NOT NULL,
    ARRAY(SELECT p.pubname::text FROM pg_publication_rel AS r JOIN pg_publication AS p ON p.oid = r.prpubid
        WHERE r.prrelid = c.oid AND p.pubname = ANY (%(publications)s) ORDER BY 1),
    c.oid = ANY (%(registered)s::oid[]), pg_get_userbyid(c.relowner), pg_has_role(current_user, c.relowner, 'USAGE')
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN keyed AS k ON k.oid = c.oid
LEFT JOIN pg_trigger AS t ON t.tgrelid = c.oid AND t.tgname = %(trigger)s AND NOT t.tgisinternal
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', %(schema)s) AND n.nspname !~ '^pg_(toast|temp)'
    AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
        AND d.deptype = 'e')
ORDER BY 1, 2"""


def read(connection: Connection, role: str) -> State:
    """Read the state of the connection's database; `role` is the collectors' login role.

    Tables that are temporary, unlogged or part of an extension are left out: they have no rows in the WAL, or are not
    the user's.
    """
    parameters: dict[str, Any] = {
        "guard": emission.GUARD,
        "owner": templates.OWNER,
        "role": role,
        "schema": templates.SCHEMA,
        "trigger": templates.TRIGGER,
        "publications": [templates.PUBLICATION, templates.PUBLICATION_INSERTS],
        "registered": registered(connection),
        "event_triggers": list(EVENT_TRIGGERS),
        # Since 16 a role may belong to another without the right to give it objects.
        "take": "SET" if connection.info.server_version >= 160_000 else "USAGE",
    }

    def rows(query: str) -> list[tuple[Any, ...]]:
        return connection.execute(query, parameters).fetchall()

    version, database, system_id, user, superuser, wal_level, guard_setting, statements, *may = rows(_SERVER)[0]
    owner = rows(_OWNER)
    roles = rows(_ROLE)
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
        publications=dict(rows(_PUBLICATIONS)),
        tables=tuple(_table(row) for row in rows(_TABLES)),
        slots=tuple((name, active) for name, active in rows(_SLOTS)),
        elsewhere=tuple(name for (name,) in rows(_ELSEWHERE)),
        event_triggers=dict(rows(_EVENT_TRIGGERS)),
        may_see_ddl=bool(rows(_MAY_SEE_DDL)[0][0]),
        open=bool(rows(_OPEN)),
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
    schema, name, partitioned, root, keyed, identity, trigger, conditional, publications, is_registered, *whose = row
    return Table(
        schema=schema,
        name=name,
        partitioned=partitioned,
        root=root,
        keyed=keyed,
        identity=identity,
        trigger=trigger,
        conditional=conditional,
        publications=tuple(publications),
        registered=is_registered,
        owner=whose[0],
        owned=whose[1],
    )
