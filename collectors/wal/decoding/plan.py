"""The plan of a relation: how its tuples become masked JSON rows, made once per Relation message; pure.

This is the hot path of the collector. A tuple without surprises goes through one loop and one bytes template; what
is rare (unchanged TOAST, old tuples, rows that are too long) takes the general way over `pgoutput.read_tuple`.
A plan also carries the bookkeeping of the part it is in (`collectors.wal.assembly.transaction`), so that a row costs no
look-up for it.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import error as LayoutError  # noqa: N812 - it is struct's own error

import msgspec
from msgspec import Struct

from collectors.wal.decoding import pgoutput
from collectors.wal.decoding.pgoutput import INT2, INT4, UNCHANGED, ProtocolError, Tuple
from collectors.wal.decoding.values import NULL, Convert, TokenCache, converter, type_names
from pgwitness.core.config import Privacy
from pgwitness.core.events import Relation, qualified, quote_identifier
from pgwitness.core.privacy import Tokenizer, names_subject, treatment
from pgwitness.core.subjects import Subjects

ROW_BYTES_MAX = 160 * 1024
"""Encoded bytes of a row; a longer one is encoded again with the limits below, so that no row exceeds a record."""
TIGHTER = (1024, 64)
HEADER_BYTES_MAX = 96 * 1024
"""Encoded bytes of a relation; one whose columns have so long names in JSON is there without them."""
SUBJECTS_MAX = 1_024
"""Subjects whose converters a plan keeps."""
PARSE_ERRORS = (LayoutError, IndexError, KeyError, ValueError)

_unpack = INT4.unpack_from


class TableFacts(Struct, frozen=True):
    """What the stream does not tell of a table and the catalogue does.

    `primary_key` are its columns and `generated` those that are computed and not published, both only as far as they
    held when the rows were written (`collectors.wal.database.catalogue`); empty where there is none, or nobody knows.
    `settled` says that asking again later would tell no more. `beacon` says that a beacon is installed on it, `wanted`
    that its rows are asked for; those of other tables are left out.
    """

    primary_key: tuple[str, ...] = ()
    generated: tuple[str, ...] = ()
    beacon: bool = False
    settled: bool = True
    wanted: bool = True


class Masking:
    """What masking needs, one for all plans of a stream: the rules, the tokenizer and the caches of tokens by limit."""

    def __init__(self, privacy: Privacy, token: Tokenizer, subjects: Callable[[], Subjects] | None = None) -> None:
        """`subjects` gives the keys of data subjects as they are now; without, nobody has one."""
        self.privacy = privacy
        self.token = token
        self.subjects = subjects
        self._caches: dict[int, TokenCache] = {}

    def tokens(self, limit: int) -> TokenCache:
        """Return the cache whose tokens hold for values up to `limit` bytes."""
        if limit not in self._caches:
            self._caches[limit] = TokenCache(self.token, limit)
        return self._caches[limit]


class Plan:
    """The plan of one relation as one Relation message described it.

    `insert`, `update` and `delete` take a message and where its tuple part begins (behind the relation's oid), the
    row's ordinal and the relation's index in its part, and give the encoded row (`events.Row`). They raise
    `ProtocolError` when the message does not fit the relation.
    """

    def __init__(
        self,
        relation: pgoutput.Relation,
        facts: TableFacts,
        masking: Masking,
        types: dict[int, tuple[str, str]],
        limit: int | None = None,
    ) -> None:
        self.oid = relation.oid
        self.part = -1  # the part that knows this plan, by number; index and counts belong to that one
        self.index = 0
        self.inserts = self.updates = self.deletes = self.truncates = 0
        self.wanted = facts.wanted
        self.described, self.facts = relation, facts
        self._made_of = (relation, facts, masking, types)
        self._types = type_names([column.type_oid for column in relation.columns], types)
        self._tighter: Plan | None = None
        self._limit = min(limit or masking.privacy.value_limit, masking.privacy.value_limit)
        self._count = INT2.pack(len(relation.columns))
        table = qualified(relation.schema, relation.name)
        self.names = distinct([column.name for column in relation.columns])
        self.relation = Relation(
            name=table,
            columns=self.names,
            identity=relation.identity,
            beacon=facts.beacon,
            generated=list(facts.generated),
        )
        self.header = msgspec.json.encode(self.relation)
        if len(self.header) > HEADER_BYTES_MAX:
            self.relation = msgspec.structs.replace(self.relation, columns=[], generated=[])
            self.header = msgspec.json.encode(self.relation)
        # Where a part is cut must not depend on whether a beacon is installed.
        self.header_size = len(self.header) + (0 if facts.beacon else len(b',"beacon":true')) + 1
        self._table = table
        self._subject = self._subject_column()
        self._by_subject: dict[bytes, list[Convert]] = {}
        self._keys_of: Subjects | None = None
        self._converters: list[Convert] = []
        self._treatments: list[str] = []
        self._labels: list[bytes | None] = []
        for name, kind in zip(self.names, self._types, strict=True):
            how = treatment(f"{table}.{quote_identifier(name)}", kind, masking.privacy)
            self._treatments.append(how)
            self._converters.append(
                converter(how, kind, masking.tokens(self._limit), masking.token, self._limit)
                if how != "drop"
                else _nothing
            )
            self._labels.append(None if how == "drop" else msgspec.json.encode(name) + b":")
        self._key = self._key_columns(relation, facts)
        self._only_key = self._key[0] if len(self._key) == 1 else None
        key = self._object_template(self._key) if self._key else b"null"
        after = b"null"
        if masking.privacy.row_values == "masked":
            after = self._object_template(list(range(len(self.names))))
        else:
            after = b"%.0b" * len(self.names) + after
        self._insert = b'[%d,"i",%d,' + key + b",null,null," + after + b"]"
        self._update = b'[%d,"u",%d,' + key + b",null,null," + after + b"]"

    def still(self, relation: pgoutput.Relation, facts: TableFacts) -> bool:
        """Return whether a description of the relation says nothing new: the server repeats it as its caches go."""
        before, known, _, types = self._made_of
        named = type_names([column.type_oid for column in relation.columns], types)
        same = known.primary_key == facts.primary_key and known.generated == facts.generated
        return (
            same
            and self.wanted == facts.wanted
            and (before, self.relation.beacon, self._types) == (relation, facts.beacon, named)
        )

    def renew(self) -> None:
        """Look whether keys of data subjects have gone; call it where a transaction first writes to the relation."""
        subjects = self._masking.subjects
        if self._subject is not None and subjects is not None and (now := subjects()) is not self._keys_of:
            self._by_subject, self._keys_of = {}, now
            if self._tighter is not None:
                self._tighter.renew()

    def insert(self, data: bytes, at: int, ordinal: int, index: int) -> bytes:
        """Encode an Insert."""
        if data[at] != 78:  # N
            raise ProtocolError(f"an insert into {self.relation.name} without its new row")
        row = self._fast(self._insert, data, at + 1, ordinal, index)
        if row is None:
            new, end = self._tuple(data, at + 1)
            self._ends(data, end)
            row = self._row(ordinal, b"i", index, None, new)
        if len(row) > ROW_BYTES_MAX:
            return self._shorter(b"I", data, at, ordinal, index, row)
        return row

    def update(self, data: bytes, at: int, ordinal: int, index: int) -> bytes:
        """Encode an Update."""
        row = self._fast(self._update, data, at + 1, ordinal, index) if data[at] == 78 else None
        if row is None:
            kind, old = data[at], None
            if kind in (75, 79):  # K, O
                old, at_new = self._tuple(data, at + 1)
            else:
                at_new = at
            if data[at_new : at_new + 1] != b"N":
                raise ProtocolError(f"an update of {self.relation.name} without its new row")
            new, end = self._tuple(data, at_new + 1)
            self._ends(data, end)
            row = self._row(ordinal, b"u", index, old, new, whole=kind == 79)
        if len(row) > ROW_BYTES_MAX:
            return self._shorter(b"U", data, at, ordinal, index, row)
        return row

    def delete(self, data: bytes, at: int, ordinal: int, index: int) -> bytes:
        """Encode a Delete."""
        if data[at] not in (75, 79):  # K, O
            raise ProtocolError(f"a delete from {self.relation.name} without its old row")
        old, end = self._tuple(data, at + 1)
        self._ends(data, end)
        row = self._row(ordinal, b"d", index, old, None, whole=data[at] == 79)
        if len(row) > ROW_BYTES_MAX:
            return self._shorter(b"D", data, at, ordinal, index, row)
        return row

    def truncate(self, ordinal: int, index: int) -> bytes:
        """Encode that the table was emptied."""
        return b'[%d,"t",%d,null,null,null,null]' % (ordinal, index)

    def unreadable(self, ordinal: int, operation: bytes, index: int) -> bytes:
        """Encode a row of which nothing but its operation can be read: without key and images."""
        return b'[%d,"%b",%d,null,null,null,null]' % (ordinal, operation, index)

    def set_beacon(self, beacon: bool, wanted: bool) -> None:
        """Return whether the table carries a beacon from here on, and whether its rows are asked for."""
        self.wanted = wanted
        if beacon != self.relation.beacon:
            self.relation = msgspec.structs.replace(self.relation, beacon=beacon)
            self.header = msgspec.json.encode(self.relation)

    def _fast(self, template: bytes, data: bytes, at: int, ordinal: int, index: int) -> bytes | None:
        """Read a new tuple and fill the template; none when a value is not there (unchanged TOAST)."""
        if data[at : at + 2] != self._count:
            raise ProtocolError(f"a row of {self.relation.name} with another number of columns than its relation")
        if self._subject is not None:
            return None  # whose it is has to be known before any value of it is masked
        at += 2
        values: list[bytes] = []
        add = values.append
        try:
            for convert in self._converters:
                kind = data[at]
                if kind == 116:  # t
                    start = at + 5
                    at = start + _unpack(data, at + 1)[0]
                    add(convert(data[start:at]))
                elif kind == 110:  # n
                    add(NULL)
                    at += 1
                elif kind == 117:  # u
                    return None
                else:
                    raise ProtocolError(
                        f"a value of kind {chr(kind)!r} in {self.relation.name}; only text was asked for"
                    )
        except PARSE_ERRORS as error:
            raise self._broken(error) from error
        if at != len(data):
            raise ProtocolError(f"a row of {self.relation.name} that does not end where its message does")
        if self._only_key is not None:
            return template % (ordinal, index, values[self._only_key], *values)
        return template % (ordinal, index, *[values[n] for n in self._key], *values)

    def _row(
        self, ordinal: int, operation: bytes, index: int, old: Tuple | None, new: Tuple | None, *, whole: bool = False
    ) -> bytes:
        """Encode a row the general way; `whole` says that `old` has all columns, not only the identity's."""
        changed = NULL
        if whole and old is not None and new is not None:
            changed = msgspec.json.encode(
                [
                    name
                    for name, was, now in zip(self.names, old, new, strict=True)
                    if now is not UNCHANGED and was is not UNCHANGED and now != was
                ]
            )
        everything = range(len(self.names))
        before = after = NULL
        if self._masking.privacy.row_values == "masked":
            if old is not None:
                # Of an old key the columns outside of it are null: they were not sent, and those of a key never are.
                columns = everything if whole else [n for n in everything if old[n] is not None]
                before = self._object(old, columns, self._converters_of(old, None))
            if new is not None:
                after = self._object(new, everything, self._converters_of(new, old))
        key = self._key_of(new if new is not None else old or [], old)
        return b'[%d,"%b",%d,%b,%b,%b,%b]' % (ordinal, operation, index, key, changed, before, after)

    def _key_of(self, row: Tuple, old: Tuple | None) -> bytes:
        """Encode what names a row; null where a part of it was not sent, because the rest would name others too."""
        # An unchanged part of the key (a long text) stands in the old tuple, if anywhere.
        values = [old[n] if old is not None and value is UNCHANGED else value for n, value in enumerate(row)]
        if not self._key or any(values[n] is UNCHANGED or values[n] is None for n in self._key):
            return NULL
        return self._object(values, self._key, self._converters_of(row, old))

    def _subject_column(self) -> int | None:
        """Give the place of the column that says whom a row is about, None where none does."""
        if self._masking.subjects is None:
            return None
        columns = [f"{self._table}.{quote_identifier(name)}" for name in self.names]
        return next((n for n, column in enumerate(columns) if names_subject(column, self._masking.privacy)), None)

    def _converters_of(self, row: Tuple, old: Tuple | None) -> list[Convert]:
        """Give what masks the values of a row: of one about somebody, with that person's key.

        What only names the row (a key without the subject) has the installation's token in each row about it, or a
        deletion, which often sends nothing else, would not be known to be of the row that was inserted.
        """
        at, subjects = self._subject, self._masking.subjects
        if at is None or subjects is None:
            return self._converters
        subject = old[at] if row[at] is UNCHANGED and old is not None else row[at]
        if not isinstance(subject, bytes):
            return self._converters
        found = self._by_subject.get(subject)
        if found is None:
            if self._keys_of is None or len(self._by_subject) >= SUBJECTS_MAX:
                self._by_subject, self._keys_of = {}, subjects()
            token = self._keys_of.tokens(subject)
            found = self._by_subject[subject] = [
                self._converters[n]
                if how == "drop" or (n in self._key and n != at)
                else converter(how, kind, TokenCache(token, self._limit), token, self._limit)
                for n, (how, kind) in enumerate(zip(self._treatments, self._types, strict=True))
            ]
        return found

    @property
    def _masking(self) -> Masking:
        return self._made_of[2]

    def _object(self, values: Tuple, columns: range | list[int], converters: list[Convert]) -> bytes:
        """Encode an object of some columns; what was not sent or is dropped is not in it."""
        members = []
        try:
            for n in columns:
                value, label = values[n], self._labels[n]
                if value is UNCHANGED or label is None:
                    continue
                if value is None:
                    members.append(label + NULL)
                else:
                    assert isinstance(value, bytes)
                    members.append(label + converters[n](value))
        except PARSE_ERRORS as error:
            raise self._broken(error) from error
        return b"{" + b",".join(members) + b"}"

    def _object_template(self, columns: list[int]) -> bytes:
        """Make the template of an object; a dropped column takes its value and writes nothing."""
        made, comma = b"{", b""
        for n in columns:
            label = self._labels[n]
            if label is None:
                made += b"%.0b"
            else:
                made += comma + label.replace(b"%", b"%%") + b"%b"
                comma = b","
        return made + b"}"

    def _key_columns(self, relation: pgoutput.Relation, facts: TableFacts) -> list[int]:
        """Choose the columns that name a row: the identity's, or the primary key where the identity names none."""
        at = {name: n for n, name in enumerate(self.names)}
        key = [at[name] for name in facts.primary_key] if all(name in at for name in facts.primary_key) else []
        if relation.identity in ("d", "i"):
            key = [n for n, column in enumerate(relation.columns) if column.key] or key
        # A key without a column that is dropped would name other rows too.
        return key if all(self._labels[n] is not None for n in key) else []

    def _shorter(self, operation: bytes, data: bytes, at: int, ordinal: int, index: int, row: bytes) -> bytes:
        """Encode a row that is too long with tighter limits; in the end without its images, which `null` says."""
        limit = next((limit for limit in TIGHTER if limit < self._limit), None)
        if limit is not None:
            if self._tighter is None:
                self._tighter = Plan(*self._made_of, limit=limit)
            return _METHODS[operation](self._tighter, data, at, ordinal, index)
        fields = msgspec.json.decode(row, type=list[msgspec.Raw])
        short = [*fields[:5], msgspec.Raw(NULL), msgspec.Raw(NULL)]
        if len(fields[3]) + len(fields[4]) > ROW_BYTES_MAX:
            short[3:5] = [msgspec.Raw(NULL)] * 2
        return msgspec.json.encode(short)

    def _tuple(self, data: bytes, at: int) -> tuple[Tuple, int]:
        try:
            values, end = pgoutput.read_tuple(data, at)
        except PARSE_ERRORS as error:
            raise self._broken(error) from error
        if len(values) != len(self.names):
            raise ProtocolError(f"a row of {self.relation.name} with another number of columns than its relation")
        return values, end

    def _ends(self, data: bytes, end: int) -> None:
        if end != len(data):
            raise ProtocolError(f"a row of {self.relation.name} that does not end where its message does")

    def _broken(self, error: Exception) -> ProtocolError:
        """Say that a row cannot be read, without any of its values."""
        return ProtocolError(f"a row of {self.relation.name} is cut or malformed: {type(error).__name__}")


def distinct(names: list[str]) -> list[str]:
    """Make names different that the way from bytes to text made the same, so that no member stands twice."""
    if len(set(names)) == len(names):
        return names
    taken = set(names)
    made: list[str] = []
    for name in names:
        number = 1
        while name in made or (number > 1 and name in taken):
            number += 1
            name = f"{names[len(made)]}~{number}"
        made.append(name)
    return made


def _nothing(_value: bytes) -> bytes:
    return b""


_METHODS = {b"I": Plan.insert, b"U": Plan.update, b"D": Plan.delete}
