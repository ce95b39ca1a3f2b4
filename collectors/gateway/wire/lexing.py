r"""Server and judge read the same bytes: what is certain of how PostgreSQL reads a text, and what is done for it. Pure.

Three settings decide how the server divides a text into tokens. With `standard_conforming_strings` off a backslash
escapes in a plain `'…'`; `client_encoding` says which bytes are one character (in GBK, SJIS or BIG5 the second may be
a backslash or a letter); `backslash_quote` refuses `\'`, and changes nothing else. The judge's parser reads UTF-8 with
the first one on. `read` gives a text that both read alike:

- as it came, where the settings are known for certain and it is read by them, or where they do not matter: it is ASCII
  and has no backslash within a plain constant. By PostgreSQL's scanner only there the two readings part;
- else rewritten so that they do not matter: `'a\b'` as `E'a\\b'`, or as `E'a\b'` where that is what it meant; what is
  not ASCII as `\uXXXX`, of a comment as `?`. What goes to the server is what was judged: should the text be read
  wrongly here, its client gets another answer, and nobody gets past;
- else it is refused.

Settings are `sure` at a ReadyForQuery behind which nothing is under way. Otherwise something is under way that may
change them (`unsure`: what they were is what is meant), or that says so (`changed`: nobody knows what is meant).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from pglast.parser import ParseError, Token, scan

Surety = Literal["sure", "unsure", "changed"]
Edit = tuple[int, int, str]
"""From where to where a text is replaced, and by what: ASCII, always."""


class Settings(NamedTuple):
    """What decides how the server reads a text, as it was last reported, and whether that still holds."""

    encoding: str = "UTF8"
    standard_strings: bool = True
    surety: Surety = "sure"
    server_encoding: str = "UTF8"


class Reported:
    """How far the settings hold that a server has reported: until something goes to it that may change them."""

    def __init__(self) -> None:
        self.sure = True
        """Nothing has gone to the server since it was ready."""
        self._changed = False
        self._unseen: list[bytes] = []
        """Texts that went, of which nobody has asked yet whether they change settings: hardly ever somebody does."""

    def again(self) -> None:
        """Take up that the server is ready and has nothing left to answer."""
        self.sure = True
        if self._unseen:
            self._unseen.clear()
        self._changed = False

    def went(self, text: bytes) -> None:
        """Take up that a text goes to the server."""
        self._unseen.append(text)
        if len(text) > UNSEEN_BYTES_MAX or len(self._unseen) > UNSEEN_MAX:
            self._look()

    def surety(self, text: bytes) -> Surety:
        """Return how sure the settings are for a text."""
        if self.sure:
            return "sure"
        if neutral(text):
            return "unsure"
        self._look()
        return "changed" if self._changed else "unsure"

    def _look(self) -> None:
        self._changed = self._changed or any(SETS.search(text) is not None for text in self._unseen)
        self._unseen.clear()


class Lexed(NamedTuple):
    """A text as it is judged, what goes to the server where that is another one, and why neither may be."""

    text: str
    forward: bytes | None = None
    doubt: str | None = None


SETS: Final = re.compile(
    rb"standard_conforming_strings|client_encoding|\bset\s+names\b|\breset\s+all\b|\bdiscard\s+all\b|set_config",
    re.IGNORECASE,
)
"""By what a text says that it changes such a setting, or gives one its value back. One that hides it is `unsure`."""

_SINGLE: Final = {
    "LATIN1": "latin-1", "LATIN2": "iso8859-2", "LATIN3": "iso8859-3", "LATIN4": "iso8859-4", "LATIN5": "iso8859-9",
    "LATIN6": "iso8859-10", "LATIN7": "iso8859-13", "LATIN8": "iso8859-14", "LATIN9": "iso8859-15",
    "LATIN10": "iso8859-16", "ISO_8859_5": "iso8859-5", "ISO_8859_6": "iso8859-6", "ISO_8859_7": "iso8859-7",
    "ISO_8859_8": "iso8859-8", "WIN866": "cp866", "WIN874": "cp874", "WIN1250": "cp1250", "WIN1251": "cp1251",
    "WIN1252": "cp1252", "WIN1253": "cp1253", "WIN1254": "cp1254", "WIN1255": "cp1255", "WIN1256": "cp1256",
    "WIN1257": "cp1257", "WIN1258": "cp1258", "KOI8R": "koi8-r", "KOI8U": "koi8-u",
}  # fmt: skip
"""Encodings of one byte a character, and Python's names of them."""
_SINGLE_SERVERS: Final = frozenset({"SQL_ASCII", *_SINGLE})
UNSEEN_MAX: Final = 256
UNSEEN_BYTES_MAX: Final = 4_096
UNKNOWN_CHARACTER: Final = "\ufffd"


def _euc(text: bytes, at: int) -> int:
    """`pg_euc_mblen`, of EUC_JP, EUC_KR, EUC_JIS_2004 and JOHAB."""
    return 2 if text[at] == 0x8E else 3 if text[at] == 0x8F else 2 if text[at] & 0x80 else 1


def _euc_cn(text: bytes, at: int) -> int:
    return 2 if text[at] & 0x80 else 1


def _euc_tw(text: bytes, at: int) -> int:
    return 4 if text[at] == 0x8E else 3 if text[at] == 0x8F else 2 if text[at] & 0x80 else 1


def _sjis(text: bytes, at: int) -> int:
    return 1 if text[at] < 0x80 or 0xA1 <= text[at] <= 0xDF else 2


def _gb18030(text: bytes, at: int) -> int:
    if text[at] < 0x80:
        return 1
    return 4 if at + 1 < len(text) and 0x30 <= text[at + 1] <= 0x39 else 2


_MULTI: Final[dict[str, tuple[Callable[[bytes, int], int], str | None]]] = {
    "EUC_JP": (_euc, "euc_jp"), "EUC_JIS_2004": (_euc, "euc_jis_2004"), "EUC_KR": (_euc, "euc_kr"),
    "EUC_CN": (_euc_cn, "gb2312"), "EUC_TW": (_euc_tw, None), "JOHAB": (_euc, "johab"), "UHC": (_euc_cn, "cp949"),
    "GBK": (_euc_cn, "gbk"), "BIG5": (_euc_cn, "cp950"), "SJIS": (_sjis, "cp932"),
    "SHIFT_JIS_2004": (_sjis, "shift_jis_2004"), "GB18030": (_gb18030, "gb18030"),
}  # fmt: skip
"""How long a character is (`src/common/wchar.c`), and Python's name of the encoding."""


class _Text(NamedTuple):
    """A text, one element a character of the server's; its own bytes character by character, None where it is UTF-8."""

    chars: str
    pieces: list[bytes] | None

    def bytes_of(self, begin: int, end: int) -> bytes:
        """Return the bytes of a part."""
        return self.chars[begin:end].encode() if self.pieces is None else b"".join(self.pieces[begin:end])


def neutral(text: bytes) -> bool:
    """Return whether a text is read alike without a closer look: it is ASCII and has no backslash."""
    return b"\\" not in text and text.isascii()


def characters(text: bytes, encoding: str) -> str | None:
    """Return a text, one element a character of the server's; None where it cannot be divided so."""
    found = _characters(text, encoding)
    return None if found is None else found.chars


def replaced(text: bytes, encoding: str, edits: Sequence[Edit]) -> bytes | None:
    """Replace parts of a text, by places in its characters; None where it cannot be written so in its encoding."""
    found = _characters(text, encoding)
    if found is None or (found.pieces is not None and not all(instead.isascii() for _, _, instead in edits)):
        return None
    made = _edited(found, edits)
    return made.bytes_of(0, len(made.chars))


def read(text: bytes, settings: Settings) -> Lexed:
    """Give what is judged and what goes to the server for a text; never raises for what the text is."""
    if neutral(text):
        return Lexed(text.decode("ascii"))
    ascii_only = text.isascii()
    found = _characters(text, settings.encoding)
    if found is None:
        return Lexed("", None, f"its characters cannot be read as {settings.encoding}")
    sure = settings.surety == "sure"
    if (sure and settings.standard_strings) or ((ascii_only or sure) and alike(found.chars)):
        return _with_code(found, settings, as_it_came=True)
    if settings.surety == "changed":
        return Lexed("", None, "what was sent before it changes how it is read; wait for that to be answered first")
    return _rewritten(found, settings, plain=not sure)


def _rewritten(found: _Text, settings: Settings, *, plain: bool) -> Lexed:
    """Rewrite a text so that settings do not matter; with `plain` so that it is ASCII."""
    if plain and not found.chars.isascii() and settings.encoding not in EXACT:
        doubt = (
            f"it has characters beyond ASCII in {settings.encoding}, behind what may change that and is not answered"
        )
        return Lexed("", None, doubt)
    try:
        edits = list(_edits(found.chars, settings, plain=plain))
    except _CannotBeWritten as why:
        return Lexed("", None, f"it cannot be written so that every setting reads it alike: {why}")
    made = _edited(found, edits)
    if not alike(made.chars) or (plain and not made.chars.isascii()):
        return Lexed("", None, TWO_WAYS)
    return _with_code(made, settings, as_it_came=False)


def _with_code(found: _Text, settings: Settings, *, as_it_came: bool) -> Lexed:
    """Rewrite the bodies of DO blocks, which are read once more when they run: by then anything may be set."""
    edits: list[Edit] = []
    if "\\" in found.chars and _DO.search(found.chars) is not None:
        try:
            for begin, end in _bodies(found.chars):
                inside = found.chars[begin:end]
                edits += [(begin + at, begin + to, instead) for at, to, instead in _of_code(inside, settings)]
        except _CannotBeWritten as why:
            return Lexed("", None, f"it cannot be written so that every setting reads it alike: {why}")
    if edits:
        found, as_it_came = _edited(found, edits), False
    return Lexed(found.chars, None if as_it_came else found.bytes_of(0, len(found.chars)))


def _of_code(inside: str, settings: Settings) -> list[Edit]:
    """Rewrite PL/pgSQL; raise `_CannotBeWritten`."""
    edits = [] if alike(inside) else list(_edits(inside, settings, plain=False))
    made = _edited(_Text(inside, None), edits).chars
    if not alike(made):
        raise _CannotBeWritten(TWO_WAYS)
    if _EXECUTE.search(made) is not None:
        for token in scan(made):
            said = made[token.start + 1 : token.end]
            if token.name in ("SCONST", "USCONST") and "\\" in said and ("'" in said.strip("'") or "$" in said):
                raise _CannotBeWritten("a DO block runs text with a backslash within a constant")
    return edits


def _language(text: str, words: list[Token]) -> str:
    """Return the language of a DO block, whose words behind DO these are."""
    for word, behind in pairwise(words):
        if word.name == "LANGUAGE":
            return text[behind.start : behind.end + 1].strip("\"'").lower()
    return "plpgsql"


def _bodies(text: str) -> Iterator[tuple[int, int]]:
    """Find bodies of DO blocks in PL/pgSQL; raise `_CannotBeWritten` for one with a backslash that is no `$$…$$`."""
    try:
        tokens = scan(text)
    except (ParseError, ValueError, UnicodeError):
        raise _CannotBeWritten("it cannot be divided into tokens") from None
    words = [token for token in tokens if token.name not in ("SQL_COMMENT", "C_COMMENT")]
    for at, token in enumerate(words):
        if token.name != "DO" or (at and words[at - 1].name != "ASCII_59"):
            continue
        behind = words[at + 1 : at + 4]
        if _language(text, behind) != "plpgsql":
            continue  # other languages have no plain constants of SQL
        for body in behind:
            whole = text[body.start : body.end + 1]
            if body.name not in ("SCONST", "USCONST") or "\\" not in whole:
                continue
            if not whole.startswith("$"):
                raise _CannotBeWritten("the body of a DO block has a backslash, and is no constant in dollars")
            tag = whole.index("$", 1) + 1
            yield body.start + tag, body.end + 1 - tag


def _edited(found: _Text, edits: Sequence[Edit]) -> _Text:
    chars: list[str] = []
    pieces: list[bytes] = []
    at = 0
    for begin, end, instead in [*edits, (len(found.chars), len(found.chars), "")]:
        chars += (found.chars[at:begin], instead)
        if found.pieces is not None:
            pieces += [*found.pieces[at:begin], *(char.encode("ascii") for char in instead)]
        at = end
    return _Text("".join(chars), None if found.pieces is None else pieces)


def alike(text: str) -> bool:
    """Return whether both values of `standard_conforming_strings` read a text alike, by PostgreSQL's own scanner.

    Both readings are in the same state until a backslash stands within a plain constant; `U&'…'` is an error in one of
    them. A text in which the scanner finds an error is none.
    """
    if "\\" not in text:
        return True
    try:
        tokens = scan(text)
    except (ParseError, ValueError, UnicodeError):
        return False
    return not any(
        token.name == "SCONST" and text[token.start] == "'" and "\\" in text[token.start : token.end + 1]
        for token in tokens
    )


def _characters(text: bytes, encoding: str) -> _Text | None:
    """Divide a text into characters as the server does; None where it cannot be, or where one would become ASCII."""
    if text.isascii():
        return _Text(text.decode("ascii"), None)
    if encoding == "UTF8":
        try:
            return _Text(text.decode(), None)
        except UnicodeDecodeError:
            return None
    if encoding == "SQL_ASCII":
        # It is taken as the database's own encoding, in none of which a byte of ASCII is part of another character.
        return _as_it_is(text)
    if (codec := _SINGLE.get(encoding)) is not None:
        chars = text.decode(codec, "replace")
        return _Text(chars, [text[at : at + 1] for at in range(len(text))]) if len(chars) == len(text) else None
    if encoding in _MULTI:
        return _several(text, *_MULTI[encoding])
    return None


def _as_it_is(text: bytes) -> _Text:
    try:
        return _Text(text.decode(), None)
    except UnicodeDecodeError:
        return _Text(text.decode("latin-1"), [text[at : at + 1] for at in range(len(text))])


def _several(text: bytes, length_of: Callable[[bytes, int], int], codec: str | None) -> _Text | None:
    pieces: list[bytes] = []
    chars: list[str] = []
    at = 0
    while at < len(text):
        piece = text[at : at + length_of(text, at)]
        at += len(piece)
        char = _character(piece, codec)
        if char.isascii() and len(piece) > 1:
            return None
        pieces.append(piece)
        chars.append(char)
    return _Text("".join(chars), pieces)


def _character(piece: bytes, codec: str | None) -> str:
    """Return a character; of one that Python does not know, or knows as several, what stands for any."""
    if len(piece) == 1 and piece[0] < 0x80:
        return chr(piece[0])
    try:
        char = piece.decode(codec) if codec is not None else UNKNOWN_CHARACTER
    except UnicodeDecodeError:
        return UNKNOWN_CHARACTER
    return char if len(char) == 1 else UNKNOWN_CHARACTER


TWO_WAYS: Final = "a backslash in it is read in two ways, by standard_conforming_strings"
_DO: Final = re.compile(r"\bdo\b", re.IGNORECASE)
_EXECUTE: Final = re.compile(r"\bexecute\b", re.IGNORECASE)
EXACT: Final = frozenset({"UTF8", "LATIN1"})
"""Encodings of which each character is the same one here and at the server."""


# -- rewriting -------------------------------------------------------------------------------------------------------


class _CannotBeWritten(Exception):
    """There is no such form."""


_SPACE = r"[ \t\n\r\f\v]"
_MORE: Final = re.compile(
    rf"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:{_SPACE}|--[^\n\r]*+[\n\r])*+'",
)
"""Between two parts of one constant there is a line's end (`quotecontinue` of `scan.l`).

Nothing is given back that was taken: a line of dashes can be divided into comments in as many ways as it is long, and
many more, and each would be tried.
"""
_BEGINS: Final = re.compile(
    r"""(?P<line>--[^\n\r]*)|(?P<block>/\*)|(?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$)"""
    r"""|(?P<escaped>[eE]')|(?P<unicode>[uU]&['"])|(?P<bits>[bBxX]')|(?P<national>[nN]')|(?P<plain>')|(?P<name>")"""
    r"""|(?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)|(?P<number>[$0-9][\w.]*)|(?P<other>.)""",
    re.DOTALL | re.ASCII,
)
_NESTED: Final = re.compile(r"/\*|\*/")


class _Token(NamedTuple):
    """A piece of a text that may have to be rewritten; `quotes` are where the parts of a constant begin and end."""

    sort: str
    begin: int
    end: int
    parts: tuple[tuple[int, int], ...] = ()


def _tokens(text: str, standard: bool) -> Iterator[_Token]:
    """Divide a text as the server does by what is known of its settings; whoever asks checks what comes of it."""
    at = 0
    while (match := _BEGINS.match(text, at)) is not None:
        sort = str(match.lastgroup)
        parts: tuple[tuple[int, int], ...] = ()
        end = match.end()
        if sort == "block":
            end = _block(text, end)
        elif sort == "dollar":
            closing = text.find(match[0], end)
            if closing < 0:
                raise _CannotBeWritten("a constant in dollars does not end")
            parts, end = ((end, closing),), closing + len(match[0])
        elif sort in ("plain", "national", "escaped"):
            parts, end = _constant(text, end, escapes=sort == "escaped" or not standard)
        elif sort in ("bits", "unicode", "name"):
            end = _until(text, end, match[0][-1], escapes=False) + 1
            parts = ((match.end(), end - 1),)
        yield _Token(sort, at, end, parts)
        at = end


def _block(text: str, at: int) -> int:
    depth = 1
    while depth:
        match = _NESTED.search(text, at)
        if match is None:
            raise _CannotBeWritten("a comment does not end")
        depth += 1 if match[0] == "/*" else -1
        at = match.end()
    return at


def _constant(text: str, at: int, *, escapes: bool) -> tuple[tuple[tuple[int, int], ...], int]:
    """Find the end of a constant that may have several parts."""
    parts = []
    while True:
        closing = _until(text, at, "'", escapes=escapes)
        parts.append((at, closing))
        more = _MORE.match(text, closing + 1)
        if more is None:
            return tuple(parts), closing + 1
        at = more.end()


def _until(text: str, at: int, quote: str, *, escapes: bool) -> int:
    """Return where the quote stands that ends what began before `at`; a doubled one does not."""
    while at < len(text):
        if text[at] == quote:
            if text[at + 1 : at + 2] != quote:
                return at
            at += 1
        elif escapes and text[at] == "\\":
            at += 1
        at += 1
    raise _CannotBeWritten("a quote does not end")


def _edits(text: str, settings: Settings, *, plain: bool) -> Iterator[Edit]:
    for token in _tokens(text, settings.standard_strings):
        whole = text[token.begin : token.end]
        strange = plain and not whole.isascii()
        if token.sort in ("plain", "national"):
            if "\\" in whole or strange:
                yield token.begin, token.parts[0][0], " E'" if token.sort == "plain" else " nchar E'"
                for begin, end in token.parts:
                    yield from _within(text, begin, end, escapes=not settings.standard_strings, plain=plain)
        elif token.sort == "escaped":
            for begin, end in token.parts if strange else ():
                yield from _within(text, begin, end, escapes=True, plain=plain)
        elif strange:
            yield token.begin, token.end, _instead(token, text, settings)
        if token.sort in ("plain", "national", "escaped") and strange:
            yield from _between(text, token)


def _between(text: str, token: _Token) -> Iterator[Edit]:
    """Refuse comments beyond ASCII between the parts of one constant."""
    for (_, end), (begin, _) in zip(token.parts, token.parts[1:], strict=False):
        if not text[end:begin].isascii():
            raise _CannotBeWritten("a comment within a constant")
    yield from ()


def _within(text: str, begin: int, end: int, *, escapes: bool, plain: bool) -> Iterator[Edit]:
    """Rewrite the inside of a constant for `E'…'`; with `escapes` its backslashes are escapes already."""
    at = begin
    while at < end:
        char = text[at]
        if char == "\\" and escapes:
            behind = text[at + 1 : at + 2]
            if behind == "'":
                yield at, at + 2, "''"
            elif plain and not behind.isascii():
                yield at, at + 2, _unicode(behind)
            at += 2
            continue
        if char == "\\":
            yield at, at + 1, "\\\\"
        elif plain and not char.isascii():
            yield at, at + 1, _unicode(char)
        at += 1


def _unicode(char: str) -> str:
    return f"\\u{ord(char):04X}" if ord(char) < 0x10000 else f"\\U{ord(char):08X}"


def _instead(token: _Token, text: str, settings: Settings) -> str:
    """Write in ASCII what is not; raise `_CannotBeWritten`."""
    whole = text[token.begin : token.end]
    if token.sort in ("line", "block"):
        return "".join(char if char.isascii() else "?" for char in whole)
    if token.sort == "dollar":
        begin, end = token.parts[0]
        inside = (char * 2 if char in "\\'" else char if char.isascii() else _unicode(char) for char in text[begin:end])
        return f" E'{''.join(inside)}'"
    if token.sort == "name":
        return _name(whole[1:-1])
    if token.sort == "word":
        if settings.server_encoding in _SINGLE_SERVERS:
            raise _CannotBeWritten("how this server folds letters of names is not known")
        # As the server folds it: letters of ASCII only, of an encoding with several bytes.
        return _name("".join(char.lower() if char.isascii() else char for char in whole))
    raise _CannotBeWritten("a constant with escapes of its own has characters beyond ASCII")


def _name(inside: str) -> str:
    made = (
        "\\\\" if char == "\\" else char if char.isascii() else f"\\{ord(char):04X}" if ord(char) < 0x10000
        else f"\\+{ord(char):06X}" for char in inside
    )  # fmt: skip
    return f' U&"{"".join(made)}"'
