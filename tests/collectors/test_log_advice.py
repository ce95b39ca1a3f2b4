"""What the doctor says of a server's log: what keeps lines out of it, from being read, or from being believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.log.advice import advice
from collectors.log.interpretation.provenance import Surroundings
from collectors.log.sample import look, take
from collectors.log.surroundings import others
from pgwitness.core.config import Log
from tests.collectors.test_log_mishaps import message

GOOD = {
    "log_destination": "stderr,jsonlog", "log_error_verbosity": "verbose", "log_min_messages": "warning",
    "logging_collector": "on", "lc_messages": "en_US.UTF-8", "log_min_duration_statement": "0",
    "log_statement": "none", "log_connections": "on", "pgaudit.log": "none",
}  # fmt: skip
LOG = Log(path="/x/*.json")


def test_a_server_as_the_how_to_has_it() -> None:
    """Nothing is said of settings that tell everything for certain."""
    assert advice(LOG, None, "UTC", GOOD) == []
    assert advice(LOG, None, "UTC", GOOD | {"lc_messages": "C"}) == []


@pytest.mark.parametrize(
    ("settings", "subject", "words", "fix"),
    [
        ({"log_destination": "csvlog"}, "log_destination", "can be read", ""),
        ({"log_destination": "stderr"}, "log_destination", "log.format is jsonlog", "log_destination = 'jsonlog'"),
        ({"log_error_verbosity": "default"}, "log_error_verbosity", "not certain", "log_error_verbosity = 'verbose'"),
        ({"log_error_verbosity": "terse"}, "log_error_verbosity", "likely (strong)", "verbose"),
        ({"log_min_messages": "fatal"}, "log_min_messages", "above LOG", "warning"),
        ({"lc_messages": "de_DE.UTF-8"}, "lc_messages", "translations into de", "lc_messages = 'C'"),
        ({"lc_messages": "zh_CN.utf8"}, "lc_messages", "translations into zh_CN", "lc_messages = 'C'"),
        ({"lc_messages": "hr_HR.UTF-8"}, "lc_messages", "in no language that is read", "lc_messages = 'C'"),
        ({"log_min_duration_statement": "-1", "log_connections": "off"}, "server log", "no more", "log_connections"),
    ],
)  # fmt: skip
def test_each_trouble_is_named_with_its_fix(settings: dict[str, str], subject: str, words: str, fix: str) -> None:
    """One finding for each, with what it costs."""
    found = advice(LOG, None, "UTC", GOOD | settings)
    if not fix:  # an operator's wrapping makes jsonlog of csvlog
        assert found == []
        return
    (item,) = found
    assert item.subject == subject
    assert words in item.problem
    assert fix in item.fix


def test_what_a_shipper_brings_may_be_another_format() -> None:
    """Through a topic, or wrapped, the server's own destination says nothing."""
    wrong = GOOD | {"log_destination": "stderr"}
    assert advice(Log(from_="kafka", topic="t"), None, "UTC", wrong) == []
    assert advice(Log(path="x", field="log"), None, "UTC", wrong) == []
    assert advice(Log(from_="sql"), None, None, GOOD | {"logging_collector": "off"})[0].subject == "logging_collector"


def test_a_path_that_matches_no_file(tmp_path: Path) -> None:
    """Said for files of this host; other sources have none."""
    (found,) = look(Log(path=str(tmp_path / "*.json")))
    assert (found.subject, "no file matches" in found.problem) == ("log.path", True)
    assert look(Log(from_="sql")) == []


def test_the_end_of_the_newest_file_is_read(tmp_path: Path) -> None:
    """Files in another format, or in which nothing is known, are said; a log that is read is fine."""
    path, log = tmp_path / "a.json", Log(path=str(tmp_path / "*.json"))
    path.write_bytes(b"".join(message("jsonlog", number) for number in range(30)))
    assert look(log) == []
    path.write_bytes(b"".join(message("csvlog", number) for number in range(30)))
    (found,) = look(log)
    assert (found.subject, "is a message of jsonlog" in found.problem) == ("log.format", True)
    foreign = message("jsonlog", 0).replace(b"duration: 0.1 ms  statement:", b"trajanje: 0.1 ms  stavek:")
    path.write_bytes(foreign * 30)
    (found,) = look(log)
    assert "30 are in no form that is read" in found.problem
    path.write_bytes(b"")
    assert look(log) == []


def test_a_piece_may_begin_within_a_line() -> None:
    """What stands before the first line's end is left out."""
    assert take(LOG, b'half"}\n' + message("jsonlog", 1)).read == 1


def test_other_languages_lower_the_trust() -> None:
    """Databases with a language whose functions can write anything, or that may not be entered, are named."""
    (found,) = others(LOG, Surroundings(frozenset({"shop"}), False, frozenset({"scripts"})))
    assert "scripts" in found.problem
    assert others(LOG, Surroundings(frozenset({"shop"}), True)) == []
