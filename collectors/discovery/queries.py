"""What a server is asked about its columns. Values are looked at inside it; what comes back are counts.

Every statement is read only, under a timeout, and waits for a lock no longer than 0.1 s. It runs as whoever asks, who
may be a superuser: no code of the tables' owners runs in it (a policy, a cast, an operator), and no other server is
asked.
"""

from __future__ import annotations

SETTINGS = """\
SET default_transaction_read_only = on; SET search_path = pg_catalog, pg_temp; SET lock_timeout = '100ms';
SET row_security = off; SET jit = off; SET max_parallel_workers_per_gather = 0"""

COLUMNS = """\
WITH RECURSIVE base AS (
    SELECT t.oid AS declared, t.oid, t.typtype, t.typbasetype, t.typelem, t.typcategory, t.typname FROM pg_type AS t
    UNION ALL
    SELECT b.declared, t.oid, t.typtype, t.typbasetype, t.typelem, t.typcategory, t.typname
    FROM base AS b JOIN pg_type AS t
        ON t.oid = CASE WHEN b.typtype = 'd' THEN b.typbasetype WHEN b.typcategory = 'A' THEN b.typelem END
), kinds AS (
    SELECT DISTINCT ON (declared) declared, typname, typcategory FROM base
    WHERE typtype <> 'd' AND (typcategory <> 'A' OR typelem = 0) ORDER BY declared
), remote AS (
    SELECT oid FROM pg_class WHERE relkind = 'f'
    UNION SELECT i.inhparent FROM pg_inherits AS i JOIN remote AS r ON i.inhrelid = r.oid
), private AS (
    SELECT objoid, objsubid FROM pg_description
    WHERE classoid = 'pg_class'::regclass AND objsubid > 0
        AND description ~*
            '\\m(pii|phi|gdpr|dsgvo|personal data|personally identif\\w*|personenbezogen\\w*|sensitive data)\\M'
    UNION SELECT objoid, objsubid FROM pg_seclabel
    WHERE classoid = 'pg_class'::regclass AND objsubid > 0 AND provider = 'anon'
)
SELECT c.oid::int8, n.nspname::text, c.relname::text, a.attname::text, a.attnum, k.typname::text, k.typcategory::text,
    c.relkind::text, d.typcategory <> 'A',
    EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey)),
    EXISTS (SELECT FROM private AS p WHERE p.objoid = c.oid AND p.objsubid = a.attnum),
    has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')
        AND NOT row_security_active(c.oid),
    a.attgenerated <> '', d.typname::text, EXISTS (SELECT FROM remote AS r WHERE r.oid = c.oid)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid
    JOIN pg_type AS d ON d.oid = a.atttypid JOIN kinds AS k ON k.declared = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
    AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgwitness')
    AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid
        AND e.deptype = 'e')
ORDER BY n.nspname, c.relname, a.attnum"""
"""Partitions are left out: their root has the columns."""

FORMS = {
    "email": r"v ~ '^[^@\s]{1,64}@[^@\s]+\.[A-Za-z]{2,24}$'",
    "credential": (
        r"v ~ '^(\$(2[abxy]|argon2[a-z]*|scrypt|[156])\$|(pbkdf2|bcrypt|scrypt|argon2)[a-z0-9_]*\$|SCRAM-SHA-"
        r"|eyJ[\w-]+\.eyJ|-----BEGIN [A-Z ]*PRIVATE KEY|gh[pousr]_\w{20}|AKIA[A-Z0-9]{16}$|[sr]k_live_|xox[abp]-)'"
    ),
    "bank": r"v ~ '^[A-Z]{2}[0-9]{2}( ?[A-Z0-9]{4}){2,7}( ?[A-Z0-9]{1,3})?$' AND v ~ '[0-9]{6}'",
    "card": (
        r"v ~ '^[2-6][0-9]{3}([ -]?[0-9]{4}){2}[ -]?[0-9]{1,7}$' AND (SELECT mod(sum(CASE WHEN mod(n, 2) = 1 THEN d"
        r" WHEN d > 4 THEN 2 * d - 9 ELSE 2 * d END), 10) = 0 FROM (SELECT substr(r, n, 1)::int AS d, n FROM"
        r" (SELECT reverse(regexp_replace(v, '[^0-9]', '', 'g')) AS r) AS s,"
        r" generate_series(1, length(r)) AS n) AS digits)"
    ),
    "identity": r"v ~ '^([0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}|[0-9]{8}[A-Z])$'",
    "online": (
        r"v ~ '^((25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})(\.(25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})){3}(/32)?"
        r"|([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2})$'"
    ),
    "phone": r"v ~ '^(\+[1-9][0-9 ()./-]{6,18}|\(?0[0-9]{2,5}\)?[ /-][0-9 /-]{4,12}|\([0-9]{3}\) ?[0-9]{3}-[0-9]{4})$'",
    "mentions": (
        r"v ~ '[\w.+-]+@[\w-]+\.[a-z]{2,}' OR v ~* '"
        r'"(e_?mail|phone|ssn|password|first_?name|last_?name|birth_?date|date_?of_?birth|iban)"\s*:'
        r"'"
    ),
}
"""By category, whether the text `v` has its form; the first that holds counts. `mentions` is for texts and JSON."""

_FORM = "CASE " + " ".join(f"WHEN {test} THEN '{category}'" for category, test in FORMS.items()) + " END"

_COUNTS = ", ".join(f"count(*) FILTER (WHERE form = '{category}')" for category in FORMS)

STATISTICS = f"""\
WITH wanted AS MATERIALIZED (
    SELECT w.root, r.relid, c.relname, n.nspname,
        row_number() OVER (PARTITION BY w.root ORDER BY c.reltuples DESC) AS place
    FROM unnest(%(roots)s::int8[]) AS w (root)
        CROSS JOIN LATERAL (SELECT w.root::oid AS relid UNION
            SELECT p.relid::oid FROM pg_partition_tree(w.root::oid::regclass) AS p WHERE p.isleaf) AS r
        JOIN pg_class AS c ON c.oid = r.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace
), bounds AS MATERIALIZED (
    SELECT w.root, w.relid, s.attname, s.n_distinct, c.reltuples,
        CASE WHEN k.plain THEN s.most_common_vals::text::text[] END AS common,
        CASE WHEN k.plain THEN s.histogram_bounds::text::text[] END AS spread
    FROM wanted AS w JOIN pg_stats AS s ON s.schemaname = w.nspname AND s.tablename = w.relname
        JOIN pg_class AS c ON c.oid = w.relid
        JOIN pg_attribute AS a ON a.attrelid = w.relid AND a.attname = s.attname
        JOIN pg_type AS d ON d.oid = a.atttypid
        JOIN pg_type AS t ON t.oid = CASE WHEN d.typtype = 'd' THEN d.typbasetype ELSE d.oid END
        CROSS JOIN LATERAL (SELECT t.typcategory IN ('S', 'N') OR t.typname = 'jsonb' AS plain) AS k
    WHERE w.place <= 4
), chosen AS (
    SELECT b.root, b.attname, left(v, 2000) AS v FROM bounds AS b CROSS JOIN LATERAL (
        SELECT unnest(b.common[1:%(values)s]) AS v
        UNION ALL
        SELECT b.spread[i]
        FROM generate_series(1, cardinality(b.spread), greatest(cardinality(b.spread) / %(values)s, 1)) AS i
    ) AS picked
), formed AS (SELECT root, attname, {_FORM} AS form FROM chosen WHERE v <> '')
SELECT f.root, f.attname::text, count(*), {_COUNTS},
    (SELECT bool_or(b.n_distinct BETWEEN 1 AND 3 AND b.reltuples >= 100) FROM bounds AS b
        WHERE b.root = f.root AND b.attname = f.attname)
FROM formed AS f GROUP BY f.root, f.attname"""
"""Out of what ANALYZE has kept: of a column at most `values` of the commonest and as many of the spread."""


def sample(table: str, columns: list[str], rows: int) -> str:
    """Return the query that looks at the first rows of a table; names come quoted."""
    # concat() writes a value by its type's own output; a cast to text may be somebody's function. One collation for
    # all: columns of several would have none, and there are some that regular expressions refuse.
    texts = ", ".join(f'({place}, left(concat(t.{column}), 2000) COLLATE "C")' for place, column in enumerate(columns))
    return (
        f"SELECT place, count(*), {_COUNTS} FROM (SELECT place, {_FORM} AS form FROM"
        f" (SELECT {', '.join(columns)} FROM {table} LIMIT {rows}) AS t"
        f" CROSS JOIN LATERAL (VALUES {texts}) AS c (place, v) WHERE v <> '') AS formed GROUP BY place"
    )
