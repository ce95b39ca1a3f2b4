"""Configuration: defaults, includes, the environment, and errors that name file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgwitness.core import config
from pgwitness.core.config import S3Path, load
from pgwitness.core.config.librdkafka import PROPERTIES
from pgwitness.core.errors import ConfigurationError

MINIMAL = '[clusters.shop]\ndsn = "postgresql://pgwitness@db/postgres"\n'


def write(path: Path, text: str) -> Path:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_file_has_working_defaults(tmp_path: Path) -> None:
    """One cluster is enough; intervals, sizes and paths have defaults, and paths are absolute."""
    loaded = config.load(write(tmp_path / "pgwitness.toml", MINIMAL), {})
    assert loaded.cluster("shop").stats_interval == 10.0
    assert loaded.cluster("shop").slot.max_lag == 10_000_000_000
    assert loaded.lake.path == tmp_path / "lake"


def test_the_contracts_example_is_read_whole(tmp_path: Path) -> None:
    """The configuration shown to users loads, every key of it."""
    text = """
include = ["conf.d/*.toml"]
[kafka]
bootstrap = "kafka.example:9092"
prefix = "audit."
"security.protocol" = "SASL_SSL"
[kafka.sasl]
mechanism = "SCRAM-SHA-512"
password_file = "kafka.password"
[clusters.shop]
dsn = "postgresql://pgwitness@db.example/postgres"
databases = ["shop", "billing"]
replicas = ["postgresql://pgwitness@db-ro.example/postgres"]
labels = { env = "prod", scope = "pci", owner = "payments" }
stats_interval = "10s"
sessions_interval = "500ms"
[clusters.shop.slot]
max_lag = "10GB"
on_max_lag = "drop"
failover = true
[clusters.shop.log]
from = "file"
path = "/var/log/postgresql/*.json"
format = "jsonlog"
[privacy]
key_file = "privacy.key"
row_values = "masked"
default = "token"
clear = ["public.orders.status"]
mask = [{ column = "*.email", with = "token" }, { column = "public.cards.number", with = "last4" }]
value_limit = "8KiB"
[lake]
path = "./lake"
signing_key_file = "lake.key"
[identities]
file = "identities.yaml"
[policies]
path = "policies/"
"""
    write(tmp_path / "kafka.password", "s3cret\n")
    write(tmp_path / "conf.d" / "crm.toml", '[clusters.crm]\ndsn = "postgresql://pgwitness@crm/postgres"\n')
    loaded = config.load(write(tmp_path / "pgwitness.toml", text), {})
    assert loaded.kafka.bootstrap == "kafka.example:9092"
    assert loaded.kafka.settings == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.password": "s3cret",
    }
    assert loaded.kafka.topic("raw") == "audit.raw"
    assert sorted(loaded.clusters) == ["crm", "shop"]
    assert loaded.privacy.mask[1].with_ == "last4"
    assert loaded.clusters["shop"].sessions_interval == 0.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[clusters.shop]\ndsn = 5\n", "clusters.shop.dsn"),
        (MINIMAL + 'stats_interval = "10"\n', "clusters.shop.stats_interval"),
        (MINIMAL + '[clusters.shop.slot]\non_max_lag = "panic"\n', "clusters.shop.slot.on_max_lag"),
        ("[lak]\n", "lak"),
        (
            '[clusters.pgwitness]\ndsn = "postgresql://localhost"\n',
            "clusters.pgwitness: what pgwitness tells of itself",
        ),
        ("[lake]\nflush = 1\n", "flush"),
        ("[lake\n", "not TOML"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path: Path, text: str, says: str) -> None:
    """Whoever reads the message knows where to look."""
    path = write(tmp_path / "pgwitness.toml", text)
    with pytest.raises(ConfigurationError) as caught:
        config.load(path, {})
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_an_error_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    """The include is named, not the file that includes it."""
    extra = write(tmp_path / "conf.d" / "crm.toml", "[clusters.crm]\ndsn = 1\n")
    main = write(tmp_path / "pgwitness.toml", 'include = ["conf.d/*.toml"]\n')
    with pytest.raises(ConfigurationError, match=r"clusters\.crm\.dsn") as caught:
        config.load(main, {})
    assert str(extra) in str(caught.value)


def test_a_key_set_in_two_files_is_refused(tmp_path: Path) -> None:
    """Two files that disagree are an error, not a race for who is read last."""
    write(tmp_path / "conf.d" / "a.toml", '[kafka]\nbootstrap = "b:1"\n')
    main = write(tmp_path / "pgwitness.toml", 'include = ["conf.d/*.toml"]\n[kafka]\nbootstrap = "a:1"\n')
    with pytest.raises(ConfigurationError, match=r"kafka\.bootstrap is set in another file"):
        config.load(main, {})


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """Two underscores go one table down; Kafka's own settings pass through."""
    environment = {"PGWITNESS_LAKE__PATH": str(tmp_path / "elsewhere"), "PGWITNESS_KAFKA__SASL__PASSWORD": "s3cret"}
    loaded = config.load(write(tmp_path / "pgwitness.toml", MINIMAL), environment)
    assert loaded.lake.path == tmp_path / "elsewhere"
    assert loaded.kafka.settings == {"sasl.password": "s3cret"}


def test_a_password_of_digits_stays_as_it_is(tmp_path: Path) -> None:
    """Zeros in front belong to a password."""
    loaded = config.load(write(tmp_path / "pgwitness.toml", MINIMAL), {"PGWITNESS_KAFKA__SASL__PASSWORD": "007"})
    assert loaded.kafka.settings == {"sasl.password": "007"}


def test_files_for_tls_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    """As every path is; one that is not there is an error that names file and key, before a client is made."""
    extra = write(tmp_path / "conf.d" / "kafka.toml", '[kafka.ssl.ca]\nlocation = "ca.crt"\n')
    main = write(tmp_path / "pgwitness.toml", 'include = ["conf.d/*.toml"]\n[kafka]\nbootstrap = "a:1"\n')
    with pytest.raises(
        ConfigurationError, match=r"kafka.toml: line 2: kafka\.ssl\.ca\.location: there is no .*/conf\.d/ca\.crt"
    ):
        config.load(main, {})
    authority = write(tmp_path / "conf.d" / "ca.crt", "")
    assert config.load(main, {}).kafka.settings == {"ssl.ca.location": str(authority)}
    write(extra, '[kafka.ssl.ca]\nlocation = "probe"\n')
    assert config.load(main, {}).kafka.settings == {"ssl.ca.location": "probe"}


def test_an_unknown_cluster_is_answered_with_those_there_are(tmp_path: Path) -> None:
    """A typing error is quickly seen."""
    loaded = config.load(write(tmp_path / "pgwitness.toml", MINIMAL), {})
    with pytest.raises(ConfigurationError, match="there is: shop"):
        loaded.cluster("shp")


def test_the_path_of_a_log_is_a_path_only_where_files_are_read(tmp_path: Path) -> None:
    """Over SQL it picks among names on the server, so this host's folders have no part in it."""
    for source, expected in (("file", str(tmp_path / "log" / "*.json")), ("sql", "log/*.json")):
        text = f'[clusters.shop]\ndsn = "host=db"\n[clusters.shop.log]\nfrom = "{source}"\npath = "log/*.json"\n'
        log = config.load(write(tmp_path / "pgwitness.toml", text), {}).cluster("shop").log
        assert log is not None
        assert log.path == expected


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('[kafka]\nbootstrapp = "b:1"\n', 2, "the Kafka client has no such setting; did you mean kafka.bootstrap?"),
        ('[kafka]\n"security.protokol" = "ssl"\n', 2, "did you mean kafka.security.protocol?"),
        ('[kafka.sasl]\nuser = "x"\n', 2, "did you mean kafka.sasl.username?"),
        ('[kafka.sasl]\npasword_file = "x"\n', 2, "did you mean kafka.sasl.password_file?"),
        ('[kafka]\n"bootstrap.servers" = "b:1"\n', 2, "its name here is kafka.bootstrap"),
        ('[kafka]\nprefix = 5\n', 2, "kafka.prefix: must be a text in quotes, not a whole number"),
        ('[kafka]\nbootstrap = ["a:1", "b:1"]\n', 2, "kafka.bootstrap: must be a text in quotes, not a list"),
        ('[kafka]\n"client.id" = ["a"]\n', 2, "kafka.client.id: must be a text, a number, true or false"),
        ("[lake]\npath = 5\n", 2, "lake.path: must be a path, that is a text in quotes; got 5"),
        ('[lake]\npath = ""\n', 2, "lake.path: must be a path"),
        ("[lake]\nflush_rows = true\n", 2, "lake.flush_rows: must be a whole number"),
        ("[lake]\nflush_interval = 5\n", 2, "lake.flush_interval: expected a number with one of the units"),
        ('lake = "x"\n', 1, "lake: must be a table, not a text in quotes"),
        (MINIMAL + 'data_bases = ["a"]\n', 3, "there is no such key; did you mean clusters.shop.databases?"),
        (MINIMAL + 'password-file = "a"\n', 3, "did you mean clusters.shop.password_file?"),
        (MINIMAL + "[clusters.shop.slot]\nmaxlag = 1\n", 4, "did you mean clusters.shop.slot.max_lag?"),
        (MINIMAL + "[clusters.shop.log]\nfrmo = 1\n", 4, "did you mean clusters.shop.log.from?"),
        (MINIMAL + "databases = 'shop'\n", 3, "clusters.shop.databases: must be a list, not a text in quotes"),
        ('[privacy]\nmask = [{ colum = "a" }]\n', 2, "there is no such key; did you mean privacy.mask"),
        ('[deliveries.soc]\nkind = "webhook"\nurll = "x"\n', 3, "did you mean deliveries.soc.url?"),
        ("[polices]\npath = 'x'\n", 1, "polices: there is no such key; did you mean policies?"),
        ("[gateway]\nlisen = 'x'\n", 2, "did you mean gateway.listen?"),
        ("[masks.support]\nx = 1\n", 2, "masks.support.x: there is no such key"),
        ("[audiences]\nx = 1\n", 1, "this version of pgwitness has no [audiences]"),
        ("[http]\nhots = '::'\n", 2, "did you mean http.host?"),
        ("[worker]\nzzz = 1\n", 2, "worker.zzz: there is no such key; there are: checkpoint_interval, data_path,"),
    ],
)  # fmt: skip
def test_an_unknown_key_or_a_wrong_type_says_where_and_what_was_meant(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    """File, line and key, and the nearest key there is or the type that is expected; in an included file likewise."""
    main = write(tmp_path / "pgwitness.toml", text)
    with pytest.raises(ConfigurationError) as caught:
        config.load(main, {})
    assert says in str(caught.value)
    assert str(caught.value).startswith((f"{main}: line {line}: ", f"{main}: lake"))
    extra = write(tmp_path / "conf.d" / "extra.toml", text)
    write(main, 'include = ["conf.d/*.toml"]\n')
    with pytest.raises(ConfigurationError, match=f"extra.toml: line {line}: "):
        config.load(main, {})
    assert extra.exists()


def test_what_the_environment_sets_wrongly_is_named_by_its_variable(tmp_path: Path) -> None:
    """The file is not blamed for it."""
    main = write(tmp_path / "pgwitness.toml", MINIMAL)
    for name, value, says in (
        ("PGWITNESS_LAKE__PATHH", "x", "environment PGWITNESS_LAKE__PATHH: lake.pathh: there is no such key"),
        ("PGWITNESS_KAFKA__SASL__PASWORD", "x", "environment PGWITNESS_KAFKA__SASL__PASWORD: kafka.sasl.pasword"),
        ("PGWITNESS_LAKE__FLUSH_ROWS", "many", "environment PGWITNESS_LAKE__FLUSH_ROWS: lake.flush_rows: must be"),
        ("PGWITNESS_KAFKA__SASL__PASSWORD_FILE", "/nowhere", "environment PGWITNESS_KAFKA__SASL__PASSWORD_FILE"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            config.load(main, {name: value})
        assert says in str(caught.value)


def test_an_included_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """A pattern may match nothing; a name that is wrong would silently leave out a cluster."""
    main = write(tmp_path / "pgwitness.toml", 'include = ["conf.d/*.toml", "crm.toml"]\n')
    with pytest.raises(ConfigurationError, match=r"include: there is no crm\.toml"):
        config.load(main, {})
    write(tmp_path / "crm.toml", MINIMAL)
    assert list(config.load(main, {}).clusters) == ["shop"]


def test_a_name_or_password_that_is_missing_is_said_before_a_client_is_made(tmp_path: Path) -> None:
    """Which of them, and how to set it; without a login, or with Kerberos, none is needed."""
    text = '[kafka]\n"security.protocol" = "SASL_SSL"\n"sasl.mechanism" = "{}"\n'
    loaded = config.load(write(tmp_path / "pgwitness.toml", text.format("SCRAM-SHA-512")), {"PGWITNESS_KAFKA__SASL__USERNAME": "a"})  # fmt: skip  # noqa: E501
    with pytest.raises(ConfigurationError, match=r"kafka\.sasl\.password is not set.*PGWITNESS_KAFKA__SASL__PASSWORD"):
        loaded.kafka.client()
    assert config.load(write(tmp_path / "pgwitness.toml", text.format("GSSAPI")), {}).kafka.client()


def test_the_list_of_kafkas_settings_is_the_librarys(tmp_path: Path) -> None:
    """A setting that librdkafka takes is never refused, and no other is taken: its own list is read from it."""
    import ctypes
    import re

    import confluent_kafka

    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    library, libc = ctypes.CDLL(str(next(folder.glob("librdkafka*")))), ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    out = ctypes.c_void_p(libc.fopen(bytes(tmp_path / "all.md"), b"w"))
    library.rd_kafka_conf_properties_show(out)
    libc.fclose(out)
    listed = (tmp_path / "all.md").read_text().splitlines()
    names = {
        m[1] for line in listed if (m := re.match(r"([a-z][a-z0-9._]+) +\|", line)) and "dedicated API" not in line
    }
    assert names - PROPERTIES == set()
    assert PROPERTIES - names == set()


def test_a_lake_in_a_bucket_keeps_its_name_and_its_files_are_relative(tmp_path: Path) -> None:
    """`s3://` is no path of this host, also from the environment; what else could be meant is refused."""
    file = tmp_path / "pgwitness.toml"
    file.write_text('[lake]\npath = "s3://acme-evidence/pgwitness/"\n[lake.s3]\nca_file = "our-ca.pem"\n')
    lake = load(file, {}).lake
    assert (str(lake.path), lake.path) == ("s3://acme-evidence/pgwitness", S3Path("s3://acme-evidence/pgwitness"))
    assert (lake.path.bucket, lake.path.prefix, str(lake.path / "head.json")) == (
        "acme-evidence",
        "pgwitness",
        "s3://acme-evidence/pgwitness/head.json",
    )
    assert lake.s3.ca_file == tmp_path / "our-ca.pem"
    with pytest.raises(ConfigurationError, match="a lake in a folder"):
        _ = lake.folder
    whole = load(file, {"PGWITNESS_LAKE__PATH": "s3://other-bucket"}).lake.path
    assert (str(whole), whole.prefix) == ("s3://other-bucket", "")
    for wrong in ("s3://", "s3://a", "s3://Bucket/x", "s3://bucket/../x", "s3://bucket/a//b", "s3://bucket/a b"):
        with pytest.raises(ConfigurationError, match=r"lake\.path: must be s3://BUCKET/PREFIX"):
            load(file, {"PGWITNESS_LAKE__PATH": wrong})
    with pytest.raises(ConfigurationError, match="endpoint: must be a URL"):
        load(file, {"PGWITNESS_LAKE__S3__ENDPOINT": "minio:9000"})
