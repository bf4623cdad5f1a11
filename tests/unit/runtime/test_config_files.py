"""Each part's own settings: its file after the shared one, its instance's after that, and its secrets from systemd."""

from __future__ import annotations

from pathlib import Path

import pytest

from virtflow.runtime import config_files
from virtflow.runtime.config_files import READS_AS, SECTIONS, SHARED_SECTIONS, chosen_files, credential_name, part_of, unread_files
from virtflow.runtime.configuration import load, rows, survey
from virtflow.runtime.secrets import CREDENTIALS
from virtflow.schemas.errors import SettingError

PASSWORD = "kafka.sasl_password_file"  # noqa: S105, a setting's name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Settings of a host: shared ones, a producer's and an exporter's, and those of one of the exporter's instances."""
    (tmp_path / "virtflow.toml").write_text('[kafka]\nbootstrap_servers = "kafka:9093"\nsasl_username = "shared"\n')
    (tmp_path / "producer.toml").write_text('[kafka]\nsasl_username = "producer"\n')
    (tmp_path / "exporter.toml").write_text('[exporter]\nlisten = "127.0.0.1:1"\nshard = "1/2"\n')
    (tmp_path / "exporter@b.toml").write_text('[exporter]\nshard = "2/2"\n')
    return tmp_path


def test_a_parts_own_file_wins_over_the_shared_one(folder: Path) -> None:
    """And what it does not say stays as all have it."""
    settings = load(folder, {}, part="producer")
    assert (settings.kafka.bootstrap_servers, settings.kafka.sasl_username) == ("kafka:9093", "producer")
    assert load(folder, {}, part="history").kafka.sasl_username == "shared"
    assert load(folder, {}).kafka.sasl_username == "shared"


def test_an_instances_file_wins_over_its_parts(folder: Path) -> None:
    surveyed = survey(folder, {"VIRTFLOW_INSTANCE": "b"}, part="exporter")
    assert (surveyed.settings.exporter.shard, surveyed.settings.exporter.listen) == ("2/2", "127.0.0.1:1")
    assert [file.name for file in surveyed.files] == ["virtflow.toml", "exporter.toml", "exporter@b.toml"]
    assert surveyed.origins["exporter.shard"] == f"file {folder}/exporter@b.toml"
    assert load(folder, {"VIRTFLOW_INSTANCE": "c"}, part="exporter").exporter.shard == "1/2"


def test_a_file_that_is_named_is_read_alone(folder: Path) -> None:
    file = folder / "virtflow.toml"
    assert chosen_files(file, {"VIRTFLOW_CONFIG": "/other"}, "producer") == (file,)
    assert chosen_files(None, {"VIRTFLOW_CONFIG": str(file)}, "producer") == (file,)
    assert chosen_files(None, {"VIRTFLOW_CONFIG": "/nowhere/at/all"}, "producer") == (Path("/nowhere/at/all"),)


def test_the_folder_is_the_named_one_or_the_hosts(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable's, else the host's own, which need not exist; one that was named must hold something."""
    monkeypatch.setattr(config_files, "DEFAULT_FOLDER", folder)
    assert chosen_files(None, {}, "producer") == (folder / "virtflow.toml", folder / "producer.toml")
    other = tmp_path_factory.mktemp("other")
    (other / "producer.toml").touch()
    assert chosen_files(None, {"VIRTFLOW_CONFIG": str(other)}, "producer") == (other / "producer.toml",)
    with pytest.raises(SettingError, match=r"Is a directory.* a folder with virtflow\.toml"):
        load(other, {}, part="history")
    monkeypatch.setattr(config_files, "DEFAULT_FOLDER", folder / "nowhere")
    assert chosen_files(None, {}, "producer") == ()


def test_a_file_that_cannot_be_read_is_an_error(folder: Path) -> None:
    """Not a reason to run with other settings: what is there counts, even a link that leads nowhere."""
    (folder / "history.toml").symlink_to("nowhere")
    with pytest.raises(SettingError, match=r"history\.toml.*No such file"):
        load(folder, {}, part="history")


@pytest.mark.parametrize(
    ("command", "part"),
    [("producer", "producer"), ("history", "history"), ("doctor", "producer"), ("migrations", "tap"), ("check", ""), ("", "")],
)
def test_the_part_of_a_command(command: str, part: str) -> None:
    assert part_of(command) == part
    assert set(READS_AS.values()) <= set(SECTIONS)


def test_sections_are_those_that_there_are() -> None:
    known = {row.section for row in rows()}
    assert {section for sections in SECTIONS.values() for section in sections} == known
    assert set(SHARED_SECTIONS) < known


def test_systemd_gives_a_service_its_secrets(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """They win over the files, which other parts read, and not over the environment; what is no setting of ours is passed over."""
    given = tmp_path_factory.mktemp("credentials")
    (given / PASSWORD).write_text("secret")
    (given / "kafka.bootstrap_servers").write_text("evil")
    environ = {"CREDENTIALS_DIRECTORY": str(given)}
    (folder / "producer.toml").write_text('[kafka]\nsasl_password_file = "/shared/password"\n')
    surveyed = survey(folder, environ, part="producer")
    assert surveyed.settings.kafka.sasl_password_file == str(given / PASSWORD)
    assert surveyed.origins[PASSWORD] == f"credential {given / PASSWORD}"
    assert surveyed.settings.kafka.bootstrap_servers == "kafka:9093"
    own = {**environ, "VIRTFLOW_KAFKA_SASL_PASSWORD_FILE": "/own"}
    assert load(folder, own, part="producer").kafka.sasl_password_file == "/own"  # noqa: S105, a file's name
    assert load(folder, environ).kafka.sasl_password_file == ""


def test_outside_of_a_service_a_secret_is_read_where_the_unit_has_it_from(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a check by root sees what the service will see, each part its own."""
    store = tmp_path / "store"
    monkeypatch.setattr(config_files, "CREDENTIAL_STORE", store)
    assert load(folder, {}, part="producer").kafka.sasl_password_file == ""
    store.mkdir()
    (store / credential_name("producer", PASSWORD)).write_text("secret")
    assert load(folder, {}, part="producer").kafka.sasl_password_file == f"{store}/virtflow-producer.{PASSWORD}"
    assert load(folder, {}, part="exporter").kafka.sasl_password_file == ""
    assert load(folder, {"CREDENTIALS_DIRECTORY": str(folder)}, part="producer").kafka.sasl_password_file == ""


def test_a_file_that_is_read_alone_names_the_secret_of_its_own_user(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An administrator's, in place of the part's; where it names none, the part's secret is taken."""
    store = tmp_path / "store"
    store.mkdir()
    monkeypatch.setattr(config_files, "CREDENTIAL_STORE", store)
    (store / credential_name("topics", PASSWORD)).write_text("secret")
    admin = folder / "admin.toml"
    admin.write_text('[kafka]\nsasl_username = "admin"\nsasl_password_file = "/root/admin.password"\n')
    surveyed = survey(admin, {}, part="topics")
    assert surveyed.settings.kafka.sasl_password_file == "/root/admin.password"  # noqa: S105, a file's name
    assert surveyed.origins[PASSWORD] == f"file {admin}"
    assert load(None, {"VIRTFLOW_CONFIG": str(admin)}, part="topics").kafka == surveyed.settings.kafka
    admin.write_text('[kafka]\nsasl_username = "virtflow-topics"\n')
    assert load(admin, {}, part="topics").kafka.sasl_password_file == f"{store}/virtflow-topics.{PASSWORD}"


def test_credentials_are_settings_that_name_files() -> None:
    assert {row.path for row in rows()} >= CREDENTIALS
    assert all(setting.endswith("_file") for setting in CREDENTIALS)


def test_misspelt_files_are_found(folder: Path) -> None:
    (folder / "producers.toml").touch()
    (folder / "exporters@b.toml").touch()
    (folder / "web.yml").touch()
    assert [file.name for file in unread_files(folder)] == ["exporters@b.toml", "producers.toml"]
