r"""Text as a database holds it, read as well as can be; pure and total.

Messages are in the database's encoding. One without an encoding (SQL_ASCII) holds whatever its clients sent: what is no
UTF-8 there is shown as `\xe9`, so that the same bytes always read the same.
"""

from __future__ import annotations

import codecs

_CODECS = {
    "UTF8": "utf-8", "SQL_ASCII": "utf-8", "LATIN1": "latin-1", "LATIN2": "iso8859-2", "LATIN3": "iso8859-3",
    "LATIN4": "iso8859-4", "LATIN5": "iso8859-9", "LATIN6": "iso8859-10", "LATIN7": "iso8859-13",
    "LATIN8": "iso8859-14", "LATIN9": "iso8859-15", "LATIN10": "iso8859-16", "ISO_8859_5": "iso8859-5",
    "ISO_8859_6": "iso8859-6", "ISO_8859_7": "iso8859-7", "ISO_8859_8": "iso8859-8", "WIN866": "cp866",
    "WIN874": "cp874", "WIN1250": "cp1250", "WIN1251": "cp1251", "WIN1252": "cp1252", "WIN1253": "cp1253",
    "WIN1254": "cp1254", "WIN1255": "cp1255", "WIN1256": "cp1256", "WIN1257": "cp1257", "WIN1258": "cp1258",
    "KOI8R": "koi8-r", "KOI8U": "koi8-u", "EUC_JP": "euc_jp", "EUC_KR": "euc_kr", "EUC_CN": "gb2312",
    "EUC_JIS_2004": "euc_jis_2004",
}  # fmt: skip
"""Python's names of the encodings a server can have (manual, 24.3); EUC_TW and MULE_INTERNAL it has none for."""


def codec_of(encoding: str) -> str:
    """Return Python's name of an encoding; of one that it does not know what is ASCII can be read."""
    return _CODECS.get(encoding, "utf-8")


def text_of(data: bytes, codec: str = "utf-8") -> str:
    """Read text; bytes that are none are shown as a backslash, `x` and two digits."""
    return data.decode(codec, "backslashreplace")


def json_of(data: bytes, codec: str = "utf-8") -> bytes:
    """Return JSON in the database's encoding as JSON in UTF-8; bytes that are no text are shown likewise."""
    return data.decode(codec, "pgwitness.json").encode("utf-8", "surrogatepass")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"\\\\x{byte:02x}" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("pgwitness.json", _escaped)
