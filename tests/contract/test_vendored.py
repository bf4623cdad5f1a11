"""What the fleet page has of others is byte for byte what is pinned, with its licence; a tarball of anything else is refused."""

from __future__ import annotations

import tarfile
import tomllib
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tools.vendored import FOLDER, PINS, Pinned, VendorError, pinned, sha256, take, with_vendored
from virtflow.exporter.page.assets import assets

ROOT = Path(__file__).resolve().parents[2]


def test_the_files_are_those_that_are_pinned() -> None:
    """Each by its hash, and there is no other; its licence lies beside it."""
    wanted = {name: digest for each in pinned() for name, digest in each.files.values()}
    assert {file.name: sha256(file.read_bytes()) for file in FOLDER.iterdir() if file.name != PINS} == wanted
    assert all("LICENSE" in each.files for each in pinned())


def test_scripts_load_what_is_served() -> None:
    text = (FOLDER.parent / "charts.js").read_text()
    served = {f"/static/{name}" for name in assets() if name.startswith("vendor/")}
    assert served == {"/static/vendor/uPlot.iife.min.js", "/static/vendor/uPlot.min.css"}
    assert all(f'"{address}"' in text for address in served)


def test_the_licences_are_told() -> None:
    """In the project's description, which goes into wheels, and in Debian's file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    licences = {path for pattern in project["license-files"] for path in ROOT.glob(pattern)}
    assert {each.license for each in pinned()} == {"MIT"}
    assert project["license"] == "Apache-2.0 AND MIT"
    assert {FOLDER / each.files["LICENSE"][0] for each in pinned()} < licences
    debian = " ".join((ROOT / "deploy/debian/copyright").read_text().replace("\n .\n", "\n").split())
    assert " ".join((FOLDER / "uPlot.LICENSE").read_text().split("\n\n", 2)[2].split()) in debian


def tarball(folder: Path, **files: bytes) -> Path:
    """A package as ``npm pack`` brings it."""
    path = folder / "thing-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(body)
            archive.addfile(member, BytesIO(body))
    return path


def package_of(path: Path, **files: bytes) -> Pinned:
    """What is pinned of it."""
    return Pinned(
        "thing", "1.0.0", "MIT", sha256(path.read_bytes()), {name: (f"thing.{name}", sha256(body)) for name, body in files.items()}
    )


def test_a_tarball_s_files_are_written(tmp_path: Path) -> None:
    packed = tarball(tmp_path, script=b"1", LICENSE=b"free", other=b"2")
    assert take(packed, [package_of(packed, script=b"1", LICENSE=b"free")], tmp_path) == ["thing.script", "thing.LICENSE"]
    assert ((tmp_path / "thing.script").read_bytes(), (tmp_path / "thing.LICENSE").read_bytes()) == (b"1", b"free")


@pytest.mark.parametrize(
    ("wanted", "changed", "why"),
    [
        ({"script": b"1"}, True, "no package with the sha256"),
        ({"LICENSE": b"free", "script": b"2"}, False, "script has the sha256"),
        ({"LICENSE": b"free", "missing": b"1"}, False, "missing has the sha256"),
    ],
)
def test_what_is_not_pinned_is_refused(tmp_path: Path, wanted: dict[str, bytes], changed: bool, why: str) -> None:  # noqa: FBT001, a case
    """Another tarball, another file, and one that is not there; nothing is written."""
    packed = tarball(tmp_path, LICENSE=b"free", script=b"1")
    package = package_of(packed, **wanted)
    if changed:
        packed.write_bytes(packed.read_bytes() + b"\n")
    with pytest.raises(VendorError, match=why):
        take(packed, [package], tmp_path)
    assert list(tmp_path.iterdir()) == [packed]


def test_a_bill_of_materials_names_them() -> None:
    bill: dict[str, Any] = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"bom-ref": "click"}],
        "dependencies": [{"ref": "click"}, {"ref": "root", "dependsOn": ["click"]}],
    }
    found = with_vendored(bill, pinned())
    (uplot,) = found["components"][1:]
    assert (uplot["purl"], uplot["licenses"]) == (f"pkg:npm/uplot@{uplot['version']}", [{"license": {"id": "MIT"}}])
    reference = uplot["bom-ref"]
    assert found["dependencies"] == [{"ref": "click"}, {"ref": "root", "dependsOn": ["click", reference]}, {"ref": reference}]
