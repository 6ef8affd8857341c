# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from conferral.settings import Settings, SettingsError, key_files, prepare_data_dir, running

HTTPS = {
    "CONFERRAL_ENV": "production",
    "CONFERRAL_PUBLIC_URL": "https://credentials.example.org",
    "CONFERRAL_SMTP_HOST": "relay.example.org",
    "CONFERRAL_MAIL_FROM": "Registry <registry@example.org>",
}


def read(folder: Path, role: str | None = None, **variables: str) -> Settings:
    """Read settings of a data directory and these variables."""
    return Settings.from_env({"CONFERRAL_DATA_DIR": str(folder), **variables}, role=role)


def refused(folder: Path, **variables: str) -> tuple[str, ...]:
    """Return the problems that refuse these variables."""
    with pytest.raises(SettingsError) as caught:
        read(folder, **variables)
    return caught.value.problems


def test_defaults_suffice_when_nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh machine needs no setting at all."""
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({"HOME": str(tmp_path)})
    assert settings.data_dir == tmp_path / ".local" / "share" / "conferral"
    assert settings.database_url == f"sqlite:///{settings.data_dir}/conferral.db"
    assert (settings.http_port, settings.stream_port, settings.metrics_port) == (8000, 8001, 8002)
    assert settings.public_url == "http://localhost:8000"
    assert settings.stream_url == "http://localhost:8001"
    assert settings.log_origin == "localhost:8000/log"
    assert settings.slots_anchoring == 3
    assert settings.redis_url == settings.broker_url == settings.result_url == ""


def test_the_data_directory_is_var_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State of a checkout stays in the checkout."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "conferral"\n')
    monkeypatch.chdir(tmp_path)
    assert Settings.from_env({}).data_dir == tmp_path / "var"


def test_broker_and_results_are_two_databases_of_one_server(tmp_path: Path) -> None:
    """One address is enough; two may be given."""
    one = read(tmp_path, CONFERRAL_REDIS_URL="rediss://:pw@redis.example.org:6380")
    assert one.broker_url == "rediss://:pw@redis.example.org:6380/0"
    assert one.result_url == "rediss://:pw@redis.example.org:6380/1"
    two = read(tmp_path, CONFERRAL_REDIS_URL="redis://a", CONFERRAL_BROKER_URL="amqp://rabbit:pw@b//")
    assert (two.broker_url, two.result_url) == ("amqp://rabbit:pw@b//", "redis://a/1")


def test_an_unknown_name_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    """A misspelt setting must not be ignored in silence."""
    assert refused(tmp_path, CONFERRAL_HTPP_PORT="1") == (
        "CONFERRAL_HTPP_PORT: there is no such setting; did you mean CONFERRAL_HTTP_PORT?",
    )


def test_names_of_the_test_suite_are_ignored(tmp_path: Path) -> None:
    """What only tests read does not stop the product."""
    read(tmp_path, CONFERRAL_TEST_DATA="/data", CONFERRAL_REQUIRE_ALL="1", CONFERRAL_EXTRAS="postgres")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """One start tells everything that is wrong, each with value and what is allowed."""
    problems = refused(
        tmp_path,
        CONFERRAL_HTTP_PORT="eighty",
        CONFERRAL_ENV="staging",
        CONFERRAL_LEASE_SECONDS="-1",
        CONFERRAL_WEBHOOK_ALLOW_CIDRS="10.0.0.0/8, ten",
        CONFERRAL_MAIL_FROM="nobody",
    )
    assert problems == (
        "CONFERRAL_ENV='staging' is not one of them; allowed: development | production",
        "CONFERRAL_HTTP_PORT='eighty' is not a whole number; allowed: 1 to 65535",
        "CONFERRAL_LEASE_SECONDS='-1' is out of range; allowed: 1 to 3600",
        "CONFERRAL_MAIL_FROM='nobody' is not a mail address; allowed: an address, or Name <address>",
        (
            "CONFERRAL_WEBHOOK_ALLOW_CIDRS='10.0.0.0/8, ten' holds 'ten', which is not a network; "
            "allowed: networks such as 10.0.0.0/8, comma-separated"
        ),
    )


def test_a_secret_is_never_shown_when_it_is_wrong(tmp_path: Path) -> None:
    """Errors and `repr` go to logs; passwords must not."""
    assert "hunter2" not in "".join(refused(tmp_path, CONFERRAL_REDIS_URL="http://:hunter2@host"))
    settings = read(tmp_path, CONFERRAL_REDIS_URL="redis://:hunter2@host")
    assert "hunter2" not in repr(settings)
    assert "http_port=8000" in repr(settings)


def test_an_empty_value_counts_as_not_set(tmp_path: Path) -> None:
    """Compose files pass empty variables."""
    assert read(tmp_path, CONFERRAL_HTTP_PORT=" ").http_port == 8000


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"CONFERRAL_STREAM_PORT": "8000"},
            "CONFERRAL_STREAM_PORT=8000 is the same port as CONFERRAL_HTTP_PORT",
        ),
        ({"CONFERRAL_HTTP_PORT": "65535"}, "CONFERRAL_STREAM_PORT=65536 is out of range"),
        ({"CONFERRAL_HEARTBEAT_SECONDS": "11"}, "allowed: at most 10"),
        ({"CONFERRAL_SMTP_USERNAME": "u"}, "CONFERRAL_SMTP_PASSWORD_FILE is missing"),
        ({"CONFERRAL_SMTP_CA_FILE": "/nowhere"}, "CONFERRAL_SMTP_CA_FILE='/nowhere' is not a file"),
        ({"CONFERRAL_PUBLIC_URL": "https://example.org/path"}, "must be scheme, host and port only"),
        ({"CONFERRAL_ANCHORS": "log,evm"}, "has an item this version does not know: evm"),
        ({"CONFERRAL_SCHEDULE": "retry_stuck"}, "holds 'retry_stuck', which is not name=seconds"),
        ({"CONFERRAL_FONT_DIRS": "/nowhere"}, "CONFERRAL_FONT_DIRS holds '/nowhere'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    """What cannot work together is told before anything starts."""
    assert any(said in problem for problem in refused(tmp_path, **variables))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"CONFERRAL_PUBLIC_URL": "http://credentials.example.org"}, "production needs https"),
        ({"CONFERRAL_PUBLIC_URL": "https://localhost"}, "is this machine"),
        ({"CONFERRAL_SMTP_HOST": ""}, "CONFERRAL_SMTP_HOST is missing"),
        ({"CONFERRAL_MAIL_FROM": ""}, "CONFERRAL_MAIL_FROM is missing"),
        ({"CONFERRAL_CRASH_AT": "claimed"}, "CONFERRAL_CRASH_AT is for tests"),
        ({"CONFERRAL_RETRY_SCALE": "0.1"}, "CONFERRAL_RETRY_SCALE=0.1 is for tests"),
        ({"CONFERRAL_SCHEDULE": "retry_stuck=2"}, "CONFERRAL_SCHEDULE is for tests"),
        ({"CONFERRAL_WEBHOOK_ALLOW_CIDRS": "127.0.0.0/30"}, "reaches loopback or link-local"),
        ({"CONFERRAL_WEBHOOK_ALLOW_CIDRS": "::/0"}, "reaches loopback or link-local"),
        ({"CONFERRAL_REDIS_URL": "redis://redis.example.org"}, "CONFERRAL_REDIS_URL needs a password"),
        (
            {"CONFERRAL_DATABASE_URL": "postgresql://u:postgres@db/x"},
            "CONFERRAL_DATABASE_URL needs a password",
        ),
    ],
)
def test_production_refuses_what_only_a_laptop_may_do(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    """A test setting or an open door in production is an error at start."""
    assert read(tmp_path, **HTTPS).is_production
    assert any(said in problem for problem in refused(tmp_path, **{**HTTPS, **variables}))


def test_production_refuses_a_data_directory_with_demo_logins(tmp_path: Path) -> None:
    """A login that a developer's terminal has shown must not open a real installation."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "demo.json").write_text("{}")
    assert any("demo login" in problem for problem in refused(tmp_path, **HTTPS))


def test_webhooks_reach_loopback_in_development_only(tmp_path: Path) -> None:
    """A listener on the same machine works; in production nothing private is open."""
    assert [str(network) for network in read(tmp_path).webhook_allow_cidrs] == ["127.0.0.0/8", "::1/128"]
    production = read(tmp_path, **HTTPS)
    assert production.webhook_allow_cidrs == ()
    assert production.webhook_allow_ports == (443, 8443)
    assert production.webhook_allow_http is False


@pytest.mark.parametrize("role", ["web", "streams", "mail", "hooks", "lp", "beat", "cli"])
def test_the_master_key_is_refused_outside_signing_processes(tmp_path: Path, role: str) -> None:
    """A hole in the web server or the mailer opens no signing key."""
    with pytest.raises(SettingsError, match="may not open it"):
        read(tmp_path, role=role).read_master_key()


def test_two_processes_agree_on_one_generated_key(tmp_path: Path) -> None:
    """Whoever starts second reads what the first one made, and nobody else can."""
    prepare_data_dir(read(tmp_path))
    first = read(tmp_path, role="hp").read_master_key()
    assert read(tmp_path, role="chain").read_master_key() == first
    key_files.write_once(tmp_path / "keys" / "master.key", "something else")
    assert read(tmp_path, role="hp").read_master_key() == first
    assert (tmp_path / "keys" / "master.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["master.key"]


def test_a_named_key_file_is_never_created(tmp_path: Path) -> None:
    """A new key in the place of a lost one would make everything it sealed unreadable."""
    settings = read(tmp_path, role="hp", CONFERRAL_MASTER_KEY_FILE=str(tmp_path / "elsewhere"))
    with pytest.raises(SettingsError, match="cannot be read"):
        settings.read_master_key()


def test_a_key_file_is_refused_when_everybody_may_read_it(tmp_path: Path) -> None:
    """A secret with open permissions is no secret."""
    prepare_data_dir(read(tmp_path))
    read(tmp_path, role="web").read_secrets_key()
    (tmp_path / "keys" / "secrets.key").chmod(0o604)
    with pytest.raises(SettingsError, match="chmod 600"):
        read(tmp_path, role="web").read_secrets_key()


def test_the_data_directory_is_private(tmp_path: Path) -> None:
    """Nobody else on the machine looks inside, even when the folder was open before."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    prepare_data_dir(read(folder))
    assert {path.stat().st_mode & 0o777 for path in [folder, *folder.iterdir()]} == {0o700}
    assert "blobs" in {path.name for path in folder.iterdir()}


def test_another_shell_finds_the_running_installation(tmp_path: Path) -> None:
    """`conferral batch issue` in a second terminal needs no configuration; the environment still wins."""
    prepare_data_dir(read(tmp_path))
    running.publish(
        tmp_path, {"CONFERRAL_REDIS_URL": "redis://:x@127.0.0.1:6391", "CONFERRAL_HTTP_PORT": "9000"}
    )
    assert read(tmp_path).redis_url == "", "a file left by a crash is old news"
    with (tmp_path / "run" / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read(tmp_path).broker_url == "redis://:x@127.0.0.1:6391/0"
        assert read(tmp_path).public_url == "http://localhost:9000"
        assert read(tmp_path, CONFERRAL_HTTP_PORT="9100").http_port == 9100
        assert read(tmp_path, role="up").redis_url == ""
    path = tmp_path / "run" / "environment.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["CONFERRAL_HTTP_PORT"] == "9000"
