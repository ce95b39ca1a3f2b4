"""The SQL of a masked value; pure.

An expression keeps its column's type but for what the type says of a value's length, takes the base of a domain,
never raises whatever is stored, and depends on no setting of the session: an error would quote the value, and a time
zone of the audience's own would tell how far it is from the end of a year. It calls core functions alone, which are
bound when the view is made. What cannot be masked so becomes null.
"""

from __future__ import annotations

from collectors.masking.catalogue import Column
from collectors.masking.names import PADS, quoted
from collectors.masking.treatment import Kind
from pgwitness.core.privacy import TOKEN_PREFIX

_TEXTS = frozenset({"text", "varchar", "bpchar", "citext", "name"})
_INTEGERS = frozenset({"int2", "int4", "int8"})
ENCODINGS = {"UTF8": "UTF8", "SQL_ASCII": "SQL_ASCII", "LATIN1": "UTF8"}
"""From a database's encoding to that of the bytes under a token: those that every text of it can be written in."""


def masked(column: Column, kind: Kind, encoding: str, source: str = "t") -> str:
    """Write how a column of the table `source` is seen, in a database of an encoding."""
    value = f"{source}.{quoted(column.name)}"
    if kind == "clear":
        return value
    made: str | None = None
    if kind == "token":
        made = _token(column, value, encoding)
    elif kind == "last4":
        made = _last4(column, value)
    elif kind == "generalise":
        made = _generalised(column, value)
    return made or f"NULL::{column.kept}"


def reads(column: Column, kind: Kind, encoding: str) -> bool:
    """Say whether a view reads the column at all: what it shows as null it need not be able to read."""
    return not masked(column, kind, encoding).startswith("NULL::")


def _token(column: Column, value: str, encoding: str) -> str | None:
    """The token of the lake (`pgwitness.core.privacy.tokenizer`) over the value's text, as replication sends it."""
    if encoding not in ENCODINGS:
        return None
    text = f"{value}::text"
    if column.base == "bpchar":  # a cast would take the blanks away that are part of what the lake saw
        text = f"concat({value})"
    elif column.base not in _TEXTS | {"json", "jsonb"}:
        return None
    inner, outer = (f"(SELECT p.{pad} FROM {PADS} AS p)" for pad in ("inner_pad", "outer_pad"))
    digest = f"sha256({outer} || sha256({inner} || convert_to({text}, '{ENCODINGS[encoding]}')))"
    token = f"'{TOKEN_PREFIX}' || encode(substr({digest}, 1, 16), 'hex')"
    if column.base in ("json", "jsonb"):
        return f"to_{column.base}({token})"
    if column.base == "bpchar":
        return f"CASE WHEN {value} IS NOT NULL THEN ({token})::bpchar END"
    return token if column.base == "text" else f"({token})::{column.type_bare}"


def _last4(column: Column, value: str) -> str | None:
    if column.base not in _TEXTS:
        return None
    text = f"{value}::text"
    shown = f"'****' || CASE WHEN char_length({text}) >= 8 THEN right({text}, 4) ELSE '' END"
    return f"CASE WHEN {value} IS NOT NULL THEN ({shown})::{column.type_bare} END"


def _generalised(column: Column, value: str) -> str | None:
    if column.base == "date":
        # make_date counts the year before year 1 as -1, as extract does; the first year there is begins before its day.
        made = f"make_date(extract(year FROM {value})::int, 1, 1)"
        return f"CASE WHEN isfinite({value}) AND {value} >= '4713-01-01 BC'::date THEN {made} END"
    if column.base in ("timestamp", "timestamptz"):
        zone = ", 'UTC'" if column.base == "timestamptz" else ""
        first = f"'4712-01-01 00:00:00+00 BC'::{column.base}"
        return f"CASE WHEN isfinite({value}) AND {value} >= {first} THEN date_trunc('year', {value}{zone}) END"
    if column.base in _INTEGERS:
        return f"{_first_digit(f'{value}::numeric')}::{column.base}"
    if column.base in ("numeric", "float4", "float8"):
        numbers = f"{value} NOT IN ('NaN', 'Infinity', '-Infinity')"
        if column.base == "numeric":  # trunc looks at no more than 2,000 digits
            numbers += f" AND abs({value}) < 1e1000"
        return f"CASE WHEN {numbers} THEN {_first_digit(f'{value}::numeric')}::{column.base} END"
    return _domain(value, column) if column.base in _TEXTS else None


def _first_digit(number: str) -> str:
    """Cut a number to its first digit before the point, towards zero, so that it never leaves its type's range."""
    return f"trunc({number}, 1 - char_length(trunc(abs({number}))::text))"


def _domain(value: str, column: Column) -> str:
    """What stands behind the @ of an address; of what is no address nothing."""
    text = f'({value}::text COLLATE "C")'
    address = rf"octet_length({text}) <= 320 AND {text} ~ '^[^@[:space:]]+@[A-Za-z0-9.-]+$'"
    return f"CASE WHEN {address} THEN ('@' || split_part({text}, '@', 2))::{column.type_bare} END"


VERSION = b"3"
"""Changes with the expressions, so that views of an earlier version are made anew."""
