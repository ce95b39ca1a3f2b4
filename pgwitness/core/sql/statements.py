"""Facts about a statement, from PostgreSQL's own parser (pglast), never from a regular expression.

`facts(text)` never raises and never lets a literal through. Literals and comments go at the level of tokens:
what is left are keywords, names, operators and `$n`; of a long list of literals the first
(`pgwitness.core.sql.folding`). Where even that is no guarantee, because the text does not parse or because the server
may have read its quotes in another way, there is no statement, only its hash. The tree is read by
`pgwitness.core.sql.tree.reader`; what is too long for it says what its words say (`pgwitness.core.sql.words`). A
distinct text is parsed once: answers are cached, bounded in bytes.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from functools import lru_cache

from msgspec import Struct

from pgwitness.core.sql import postgres_parser as parser
from pgwitness.core.sql.bodies import COMMENTS, read_bodies, statements_of
from pgwitness.core.sql.folding import FOLD, beginning, folded
from pgwitness.core.sql.identifiers import glaring, in_characters, name_of
from pgwitness.core.sql.transactions import control
from pgwitness.core.sql.tree.facts import Handle, Made
from pgwitness.core.sql.tree.nodes import Tree, walk
from pgwitness.core.sql.tree.reader import Reader
from pgwitness.core.sql.tree.stands import Stand
from pgwitness.core.sql.words import read_letters, read_words

CACHE_BYTES_MAX = 16 * 1024 * 1024
CACHE_ENTRIES_MAX = 8_192
RECENT_MAX, RECENT_CHARS_MAX = 1_024, 1_000
"""Texts of so many characters at most that are known by themselves."""
TEXT_CHARS_MAX = 4 * 1024 * 1024
"""A longer text is not parsed: its facts are its hash."""
STATEMENT_CHARS_MAX = 16 * 1024
"""Where a statement without literals is cut off; ` …` stands for the rest."""
BEGINNING_CHARS_MIN, BEGINNING_CHARS_MAX = 100, 2_000
"""What is kept of a statement that is too long for the parser; less says nothing."""
HANDLES_MAX = 100
NAMES_MAX = 1_000
"""Relations, columns and functions named at most, each."""

_LITERALS = {"SCONST", "USCONST", "ICONST", "FCONST", "BCONST", "XCONST"}
_SET_CLEAR = {"role", "session_authorization", "search_path", "session_replication_role", "timezone"}
"""Settings whose value, written as a name, is a name; of any other it may be a secret."""
PARAMETERS_MAX = 10_000
PARAMETER_DIGITS_MAX = 5
"""A statement has 65,535 parameters at most."""
CUT = " …"
"""What stands at the end of a statement that was cut off."""

_OF_ROWS = frozenset({"select", "select_nothing", "insert", "update", "delete", "merge", "do", "execute", "prepare"})
IDLE = frozenset(
    {"begin", "rollback", "rollback_to", "savepoint", "release", "set", "show", "discard", "deallocate", "prepare"}
)
"""Operations that write nothing and commit nothing."""


class StatementFacts(Struct, frozen=True):
    """What is known about one text sent to the server, which may hold several statements.

    `statement` has `$n` for its literals and no comments; None when it could not be made free of them for certain.
    `sha256` is the hex digest of the text as it came. `fingerprint` is pglast's, equal for texts that differ in
    literals only. `operations` are words such as `select`, `delete`, `copy_from`, `drop_table`, `create_role`, all that
    the text runs, in CTEs and DO bodies too. `relations` are qualified where the text qualifies them; names of CTEs are
    not among them. `columns` are `relation.column` where the text alone tells the relation. `where` is the worst WHERE
    of any UPDATE, DELETE or MERGE: `none`, `useless` (it holds for every row or for none: `true`, `1=1`, `x = x`,
    parameters only), `present`, or `n/a`. `utility` is set when a statement is not one of SELECT, INSERT, UPDATE,
    DELETE, MERGE. `parse_error` says why there is no statement or less is known. `functions` are the functions that are
    called by name. `settings` are those it changes, `name=value` where the value is told (see
    `pgwitness.core.sql.tree.utility`), else `name=?`. `objects` is what else it names, with its type: `extension
    dblink`, `role ada`. `defines` are operations in the body of a function that it makes: they have not run. `inserts`
    is set when it is nothing but INSERTs of listed values without ON CONFLICT: each makes a row if it succeeds (and no
    trigger or rule takes it away). `handles` is what it does with prepared statements and cursors. `assigned` are those
    of `columns` that it only fills. `whole` are the relations of which it reads every row, as far as its text tells
    (`pgwitness.core.sql.tree.wholes`). `returning` is set when a statement that writes gives rows back. `written` are
    the relations whose rows it changes, or which it empties or drops. `made` are the functions that it makes, with what
    their bodies do. `attached` is what it attaches to something that runs it later, unnamed: trigger functions, a
    rule's statements, what an operator or a default calls; and under its new name a function that is renamed. `perhaps`
    are functions that may run although nothing calls them: planned where no row comes, or read as a column is (`.f`).
    `stands` are names that stand for others from then on (`pgwitness.core.sql.tree.stands`). These three are for who
    decides before it runs. `control` are its words about transactions and savepoints in their order
    (`pgwitness.core.sql.transactions`); empty for a single statement of any other kind.
    """

    statement: str | None
    sha256: str
    fingerprint: str | None = None
    operations: tuple[str, ...] = ()
    relations: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    where: str = "n/a"
    utility: bool = False
    parse_error: str | None = None
    functions: tuple[str, ...] = ()
    inserts: bool = False
    settings: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()
    handles: tuple[Handle, ...] = ()
    assigned: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    returning: bool = False
    written: tuple[str, ...] = ()
    made: tuple[Made, ...] = ()
    attached: tuple[Made, ...] = ()
    perhaps: tuple[str, ...] = ()
    stands: tuple[Stand, ...] = ()
    control: tuple[str, ...] = ()


def about_objects(known: StatementFacts) -> bool:
    """Say whether a statement makes, changes or grants things and reads no rows: its names are theirs, as of roles."""
    return known.utility and _OF_ROWS.isdisjoint(known.operations)


class _Cache:
    """Facts by the text's digest; the least recently used go first. Safe for threads."""

    def __init__(self, bytes_max: int, entries_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self._entries: OrderedDict[bytes, tuple[StatementFacts, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, key: bytes) -> StatementFacts | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: bytes, value: StatementFacts) -> None:
        names = (*value.operations, *value.relations, *value.columns, *value.functions)
        names += (*value.settings, *value.objects, *value.defines, *value.assigned, *value.whole, *value.control)
        names += value.written
        names += value.perhaps
        for stand in value.stands:
            names += (stand.name, *stand.behind, *stand.columns, *stand.shown, *stand.functions)
        items: tuple[Handle | Made, ...] = (*value.handles, *value.made, *value.attached)
        for item in items:
            names += (item.name, *item.operations, *item.relations, *item.columns, *item.functions, *item.whole)
        size = 600 + 2 * len(value.statement or "") + sum(60 + 2 * len(name) for name in names)
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = (value, size)
            self.bytes += size
            while self.bytes > self._bytes_max or len(self._entries) > self._entries_max:
                self.bytes -= self._entries.popitem(last=False)[1][1]


_cache = _Cache(CACHE_BYTES_MAX, CACHE_ENTRIES_MAX)


def facts(text: str, *, freed: bool = False, wary: bool = False) -> StatementFacts:
    """Tell what a text sent to the server does, and what it looks like without its literals. Never raises.

    `freed` says that it is a statement which was freed of its literals before. One that was cut off then ends in `CUT`
    and passes as it is; anybody can write that mark behind a text that does not parse. `wary` is for who decides by the
    text whether it may run: a name alone means no temporary table then, though the text has made one.
    """
    return _recent(text, freed, wary) if len(text) <= RECENT_CHARS_MAX else _known(text, freed, wary)


def _known(text: str, freed: bool, wary: bool) -> StatementFacts:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    key = digest.digest() + (b"1" if freed else b"0") + (b"w" if wary else b"")
    known = _cache.get(key)
    if known is None:
        known = _facts(text, digest.hexdigest(), freed, wary)
        _cache.put(key, known)
    return known


_recent = lru_cache(RECENT_MAX)(_known)
"""The same few texts come again and again: these need no digest."""


def _facts(text: str, sha256: str, freed: bool, wary: bool) -> StatementFacts:
    if len(text) > TEXT_CHARS_MAX:
        return StatementFacts(None, sha256, parse_error=f"longer than {TEXT_CHARS_MAX} characters")
    text = folded(text).text
    try:
        tokens = parser.scan(text)
        readable = _readable(text, tokens)
        tree = parser.parse_sql_json(readable)
        fingerprint = parser.fingerprint(readable)
    except (parser.ParseError, ValueError) as error:
        return _unparsable(text, sha256, error, freed)
    reader = Reader(wary=wary)
    words: tuple[str, ...] = ()
    hidden: set[int] = set()
    sets = any(token.name == "SET" for token in tokens)
    try:
        items = statements_of(tree)
        words = control(items)
        for item in items:
            reader.read(item)
            hidden |= _hidden(item) if sets else set()
    except (RecursionError, LookupError, TypeError, AttributeError) as error:
        # Too deep, or a tree of a shape this release does not know: the words of the text still say what it may do.
        reader = Reader()
        reader.utility = True
        read_words(tokens, reader)
        why = "nested too deeply" if isinstance(error, RecursionError) else "a tree that is not understood"
        return _answer(None, sha256, fingerprint, reader, why)
    read_bodies(reader)
    statement, error_text = _without_literals(text, tokens, hidden)
    return _answer(statement, sha256, fingerprint, reader, error_text, words)


def _readable(text: str, tokens: list[parser.Token]) -> str:
    """Give a text that parses: the server's statistics, and ourselves, put `$1` where the grammar has no parameter.

    `DO $1`, `SAVEPOINT $1`, `COPY t FROM PROGRAM $1`: something of the same length stands in, so places stay.
    """
    parameters = [token for token in tokens if token.name == "PARAM"]
    if not parameters or len(parameters) > PARAMETERS_MAX:
        return text
    fills = ["", "''", "xx", "11"]
    if any(token.name == "COPY" for token in tokens):
        fills.insert(0, "'x'")  # this parser takes `COPY t TO $1`, and forgets that it is a file
    for fill in fills:
        tried = _filled(text, parameters, fill) if fill else text
        try:
            parser.fingerprint(tried)
        except parser.ParseError:
            continue
        return tried
    return text


def _filled(text: str, parameters: list[parser.Token], fill: str) -> str:
    """Put `fill`, stretched to the parameter's length by its middle, in the place of each parameter."""
    pieces, end = [], 0
    for token in parameters:
        stretch = " " if fill == "''" else fill[1]
        pieces += [text[end : token.start], fill[:-1].ljust(token.end - token.start, stretch), fill[-1]]
        end = token.end + 1
    return "".join([*pieces, text[end:]])


def _unparsable(text: str, sha256: str, error: Exception, freed: bool) -> StatementFacts:
    """Answer for what does not parse; what is only too deep for this parser may still run on the server.

    A statement that was freed and cut off here before says what its words say, and passes as it is.
    """
    reader = Reader()
    if isinstance(error, parser.TooCostly):
        reader.utility = True
        read_letters(text, reader)
        begun = _beginning(text) if str(error) == parser.LONG else None
        return _answer(begun, sha256, None, reader, str(error))
    cut = freed and text.endswith(CUT)
    statement = None
    if cut or "stack depth" in str(error) or "memory exhausted" in str(error):
        try:
            tokens = parser.scan(text)
        except (parser.ParseError, ValueError):
            return _answer(None, sha256, None, reader, _reason(error))
        reader.utility = True
        read_words(tokens, reader)
        names = {token.name for token in tokens if text[token.start : token.end + 1] != FOLD}
        if cut and names.isdisjoint(_LITERALS | COMMENTS | {"SET"}):
            statement = text
    return _answer(statement, sha256, None, reader, _reason(error))


def _beginning(text: str) -> str | None:
    """Give the beginning of a text that is too long for the parser; None where a name in it may be a value."""
    begun = beginning(text, BEGINNING_CHARS_MAX)
    if len(begun) < BEGINNING_CHARS_MIN:
        return None
    try:
        tokens = parser.scan(begun)
    except (parser.ParseError, ValueError):
        return None
    for token in tokens:
        word = begun[token.start : token.end + 1]
        if token.name == "SET" or ('"' in word and glaring(name_of(word))):
            return None
    statement, _ = _without_literals(begun, tokens, set())
    return statement + CUT if statement else None


def _answer(
    statement: str | None,
    sha256: str,
    fingerprint: str | None,
    reader: Reader,
    error: str | None,
    words: tuple[str, ...] = (),
) -> StatementFacts:
    error = error or reader.unread
    if statement is not None and len(statement) > STATEMENT_CHARS_MAX + len(CUT):
        statement = statement[:STATEMENT_CHARS_MAX].rsplit(" ", 1)[0] + CUT
    return StatementFacts(
        statement=statement,
        sha256=sha256,
        fingerprint=fingerprint,
        operations=tuple(reader.operations)[:NAMES_MAX],
        relations=tuple(reader.relations)[:NAMES_MAX],
        columns=tuple(reader.columns)[:NAMES_MAX],
        where=reader.where,
        utility=reader.utility,
        parse_error=error,
        functions=tuple(reader.functions)[:NAMES_MAX],
        inserts=error is None and reader.inserts and set(reader.operations) == {"insert"},
        settings=tuple(reader.settings)[:NAMES_MAX],
        objects=tuple(reader.objects)[:NAMES_MAX],
        defines=tuple(reader.defines)[:NAMES_MAX],
        handles=tuple(reader.handles)[:HANDLES_MAX],
        assigned=tuple(name for name in reader.columns if name not in reader.read_columns)[:NAMES_MAX],
        whole=tuple(reader.whole)[:NAMES_MAX],
        returning=reader.returning,
        written=tuple(reader.written)[:NAMES_MAX],
        made=_bounded(reader.made),
        attached=tuple(reader.attached)[:HANDLES_MAX],
        perhaps=tuple(reader.perhaps)[:NAMES_MAX],
        stands=tuple(reader.stands)[:HANDLES_MAX],
        control=words,
    )


def _bounded(made: list[Made]) -> tuple[Made, ...]:
    """Give the functions that a text makes, of which not more than a call would be told is known."""
    return tuple(item for item in made if sum(len(names) for names in item[1:6]) <= HANDLES_MAX)[:HANDLES_MAX]


def _reason(error: Exception) -> str:
    """Say why a text does not parse without quoting it: the parser's own message repeats what stands there."""
    if isinstance(error, UnicodeEncodeError):
        return "not valid Unicode"
    for known in ("syntax error", "stack depth limit exceeded", "memory exhausted", "unterminated quoted string"):
        if str(error).startswith(known):
            return known
    return "does not parse"


def _without_literals(text: str, tokens: list[parser.Token], hidden: set[int]) -> tuple[str | None, str | None]:
    """Write the text again from its tokens, with `$n` for literals and without comments.

    `hidden` are byte offsets of names that stand for values. A plain string with a backslash before a quote means
    something else to a server with standard_conforming_strings off: then nothing is certain, and nothing is kept.
    """
    pieces: list[str] = []
    number = max((_parameter(text, token) for token in tokens if token.name == "PARAM"), default=0)
    offsets = in_characters(text, hidden) if hidden else hidden
    end = -1
    for start, last, name, _ in tokens:
        word = text[start : last + 1]
        if name in COMMENTS and word != FOLD:
            continue
        if name in _LITERALS or (name == "PARAM" and last - start > PARAMETER_DIGITS_MAX) or start in offsets:
            if name == "SCONST" and word[0] == "'" and "\\'" in word:
                return None, "a backslash before a quote: its literals cannot be told for certain"
            number += 1  # a parameter of so many digits is none: `$4111111111111111`
            word = f"${number}"
        if start != end + 1 and pieces:
            pieces.append(" ")
        pieces.append(word)
        end = last
    return "".join(pieces), None


def _parameter(text: str, token: parser.Token) -> int:
    digits = text[token.start + 1 : token.end + 1]
    return int(digits) if digits.isdecimal() and len(digits) <= PARAMETER_DIGITS_MAX else 0


def _hidden(node: Tree) -> set[int]:
    """Find values that are written as names, `SET x = secret`: byte offsets of constants in what SET assigns."""
    found: set[int] = set()
    for item in walk(node):
        for kind in ("VariableSetStmt", "setstmt"):
            body = item.get(kind)
            if isinstance(body, dict) and str(body.get("name", "")).lower() not in _SET_CLEAR:
                found |= _constants(body.get("args", []))
    return found


def _constants(args: list[Tree]) -> set[int]:
    return {int(arg["A_Const"].get("location", 0)) for arg in args if isinstance(arg.get("A_Const"), dict)}
