"""What the doctor says of slots and disks before they are needed."""

from __future__ import annotations

import errno
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace

from pgwitness.cli.doctor import installation, slots, storage
from pgwitness.cli.doctor.lines import Line
from pgwitness.cli.doctor.slots import Slot
from pgwitness.core.config import Cluster, Collectors, Config, Lake
from sinks.lake import writer as lakes
from sinks.lake.storage.files import Files
from tests.sinks.material import ORDINARY, change

GB = 1024**3
WANTED = {"pgwitness_shop": "shop", "pgwitness_crm": "crm"}
OTHER = [Slot(f"other_{n}", None, None, True) for n in range(3)]


@pytest.mark.parametrize(
    ("there", "slots_max", "senders_max", "senders_used", "wrong"),
    [
        (OTHER, 5, 10, 3, []),
        (OTHER, 4, 10, 3, ["max_replication_slots"]),
        (OTHER, 3, 4, 3, ["max_replication_slots", "max_wal_senders"]),
        (OTHER, 10, 4, 3, ["max_wal_senders"]),
        ([*OTHER, Slot("pgwitness_shop", "pgoutput", "shop", True)], 5, 10, 4, []),
        ([*OTHER, Slot("pgwitness_shop", "pgoutput", "shop", True)], 4, 5, 4, ["max_replication_slots"]),
        ([*OTHER, Slot("pgwitness_shop", "pgoutput", "shop", False)], 9, 4, 3, ["max_wal_senders"]),
        ([Slot("pgwitness_shop", "test_decoding", "shop", False)], 9, 9, 0, ["slot pgwitness_shop"]),
        ([Slot("pgwitness_shop", "pgoutput", "another", False)], 9, 9, 0, ["slot pgwitness_shop"]),
        ([Slot("pgwitness_shop", None, None, True)], 9, 9, 1, ["slot pgwitness_shop"]),
    ],
)
def test_slots_that_are_needed_and_not_free_are_said(
    there: list[Slot], slots_max: int, senders_max: int, senders_used: int, wrong: list[str]
) -> None:
    """Each database needs one; what stands already is not needed again; a name may be another's."""
    found = slots.judge("shop", WANTED, there, slots_max, senders_max, senders_used)
    assert [line["what"] for line in found] == wrong
    assert all(line["state"] == "error" and line["fix"] for line in found)


def test_a_slot_of_another_plugin_is_found_on_the_server(database18: str) -> None:
    """Its plugin and database are named, with what to do."""
    database = database18.rpartition("/")[2]
    cluster = Cluster(dsn=database18, databases=[database])
    lines: list[Line] = []
    slots.examine("shop", cluster, lines)
    assert lines == []
    with psycopg.connect(database18, autocommit=True) as admin:
        admin.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [f"pgwitness_{database}"])
    slots.examine("shop", cluster, lines)
    assert [(line["where"], line["state"]) for line in lines] == [(f"shop/{database}", "error")]
    assert f"plugin test_decoding in database {database}" in str(lines[0]["found"])
    assert f"pg_drop_replication_slot('pgwitness_{database}')" in str(lines[0]["fix"])


def look(config: Config) -> dict[str, Line]:
    """Give what is said of disks by what was checked, errors and warnings alone."""
    lines: list[Line] = []
    storage.storage(config, lines)
    return {f"{line['where']} {line['what']}": line for line in lines if line["state"] in ("error", "warning")}


def configured(folder: Path) -> Config:
    """A configuration whose lake and state are in a folder."""
    return Config(lake=Lake(path=folder / "lake"), collectors=Collectors(state_path=folder / "state"))


def test_a_place_that_can_be_written_is_in_order_and_stays_as_it_was(tmp_path: Path) -> None:
    """Before a worker has made the lake and after; nothing of the doctor's is left."""
    assert look(configured(tmp_path)) == {}
    fill(tmp_path / "lake")
    before = sorted(tmp_path.rglob("*"))
    assert look(configured(tmp_path)) == {}
    assert sorted(tmp_path.rglob("*")) == before


def fill(path: Path) -> None:
    """Land a row."""
    writer = lakes.Lake(path, files=Files()).writer("events", 0)
    writer.resume()
    writer.append(0, [change(1)], [ORDINARY])
    writer.commit()


def test_a_file_where_the_lake_must_be_is_said(tmp_path: Path) -> None:
    """Whoever may write everywhere cannot write into a file."""
    (tmp_path / "lake").write_text("")
    found = look(configured(tmp_path))
    assert found.keys() == {"lake writing"}
    assert "a file stands where a folder must be" in str(found["lake writing"]["fix"])
    (tmp_path / "state").write_text("")
    config = configured(tmp_path)
    config = replace(config, lake=Lake(path=tmp_path / "lake" / "below" / "it"))
    assert look(config).keys() == {"lake writing", "state writing"}


def test_what_the_system_refuses_is_said_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a lake that is there each folder is tried; a file system without hard links is told from missing rights."""
    fill(tmp_path / "lake")

    def link(source: Path, target: Path) -> None:
        if "_log" in str(source):
            raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("os.link", link)
    (found,) = look(configured(tmp_path)).values()
    assert "_log cannot be written to" in str(found["found"])
    assert "hard links" in str(found["fix"])


@pytest.mark.parametrize(
    ("total", "free", "state"),
    [(1000 * GB, 100 * GB, "ok"), (1000 * GB, 15 * GB, "warning"), (10 * GB, 1 * GB, "warning"),
     (10 * GB, GB // 8, "error"), (1000 * GB, 2 * GB, "error"), (20 * GB, 4 * GB, "ok")],
)  # fmt: skip
def test_a_disk_that_is_nearly_full_is_said(total: int, free: int, state: str) -> None:
    """In share and in bytes: a tenth of a small disk is little, a twentieth of a large one is not."""
    (found,) = storage.judge_room("lake", "/lake", total, free)
    assert found["state"] == state


def test_a_lake_that_everybody_may_read_is_a_warning(tmp_path: Path) -> None:
    """As older versions made it; a folder above that nobody else may enter is not looked for."""
    fill(tmp_path / "lake")
    (tmp_path / "lake").chmod(0o755)
    found = look(configured(tmp_path))
    assert found["lake rights"]["fix"] == f"chmod -R o= {tmp_path / 'lake'}; lake.group names who may read it"


def test_what_the_log_names_and_is_not_there_is_said(tmp_path: Path) -> None:
    """A deleted file is no silence, and a planted one is told."""
    fill(tmp_path / "lake")
    lines: list[Line] = []
    installation.lake(configured(tmp_path), lines)
    assert [line["state"] for line in lines] == ["ok"]
    file = next((tmp_path / "lake").glob("rows/dt=2*/*.parquet"))
    file.rename(file.with_name("other.parquet"))
    installation.lake(configured(tmp_path), lines)
    missing, planted = [line for line in lines if line["what"] == "log"]
    assert (missing["state"], planted["state"]) == ("error", "warning")
    assert "1 files missing, such as rows/dt=" in str(missing["found"])
    assert "1 files are in no entry, such as rows/dt=2026-09-22/other.parquet" in str(planted["found"])


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/evidence /srv/shared nfs4 rw,vers=4.2 0 0
/dev/sdb1 /srv/shared/own\\040disk ext4 rw 0 0
s3fs /mnt/bucket fuse.s3fs rw 0 0
"""


@pytest.mark.parametrize(
    ("lake", "kind"),
    [
        ("/srv/lake", None),
        ("/srv/shared/lake", "nfs4"),
        ("/srv/shared", "nfs4"),
        ("/srv/sharedlake", None),
        ("/srv/shared/own disk/lake", None),
        ("/mnt/bucket/lake", "fuse.s3fs"),
    ],
)
def test_a_lake_on_a_file_system_that_hosts_share_is_an_error(lake: str, kind: str | None) -> None:
    """It is the innermost mount that counts."""
    found = storage.judge_kind(Path(lake), MOUNTS)
    assert [kind in str(line["found"]) for line in found] == [True] * (kind is not None)


def test_who_says_that_hosts_share_it_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `lake.shared_filesystem` nothing is said."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/ {tmp_path} nfs rw 0 0\n")
    monkeypatch.setattr(storage, "MOUNTS", mounts)
    for told in (False, True):
        lines: list[dict[str, object]] = []
        config = configured(tmp_path)
        storage.storage(replace(config, lake=replace(config.lake, shared_filesystem=told)), lines)
        assert [line["state"] for line in lines if line["what"] == "file system"] == ["error"] * (not told)
