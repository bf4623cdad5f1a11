"""Libraries of others that the fleet page has: files of npm packages, unmodified, pinned in ``exporter/page/static/vendor/vendored.toml``.

python -m tools.vendored pinned                    NAME@VERSION of each, as `npm pack` takes them
python -m tools.vendored take uplot-1.6.32.tgz     writes the pinned files of tarballs; refuses what has another hash
python -m tools.vendored bill FILE                 adds them to a bill of materials (CycloneDX, JSON)
"""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).resolve().parent.parent / "exporter" / "page" / "static" / "vendor"
PINS: Final = "vendored.toml"


class VendorError(Exception):
    """A tarball or a file of it is not what is pinned."""


class Pinned(NamedTuple):
    """A package: its tarball's hash, and for each file's path in it the name here and its hash (SHA-256)."""

    name: str
    version: str
    license: str
    tarball_sha256: str
    files: dict[str, tuple[str, str]]


def pinned(folder: Path = FOLDER) -> list[Pinned]:
    """All packages."""
    tables = tomllib.loads((folder / PINS).read_text())["package"]
    return [Pinned(**{**each, "files": {path: (file["name"], file["sha256"]) for path, file in each["files"].items()}}) for each in tables]


def take(tarball: Path, packages: Sequence[Pinned], folder: Path) -> list[str]:
    """Writes the files of a package's tarball; their names. Raises ``VendorError`` before anything is written."""
    found = sha256(tarball.read_bytes())
    package = next((each for each in packages if each.tarball_sha256 == found), None)
    if package is None:
        raise VendorError(f"{tarball.name}: no package with the sha256 {found} is pinned")
    bodies = {}
    with tarfile.open(tarball) as archive:
        for path, (name, wanted) in package.files.items():
            try:
                member = archive.extractfile(f"package/{path}")
            except KeyError:
                member = None
            body = member.read() if member is not None else b""
            if sha256(body) != wanted:
                raise VendorError(f"{tarball.name}: {path} has the sha256 {sha256(body)}, {wanted} is pinned")
            bodies[name] = body
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
    return list(bodies)


def with_vendored(bill: dict[str, Any], packages: Sequence[Pinned]) -> dict[str, Any]:
    """A bill of materials with the packages among its components and in what the application needs."""
    components = [_component(each) for each in packages]
    references = [each["bom-ref"] for each in components]
    application = bill["metadata"]["component"]["bom-ref"]
    needs = [
        {**each, "dependsOn": sorted([*each.get("dependsOn", ()), *references])} if each["ref"] == application else each
        for each in bill["dependencies"]
    ]
    return {**bill, "components": [*bill["components"], *components], "dependencies": [*needs, *({"ref": one} for one in references)]}


def _component(package: Pinned) -> dict[str, Any]:
    return {
        "bom-ref": f"{package.name}=={package.version}",
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": f"pkg:npm/{package.name}@{package.version}",
        "hashes": [{"alg": "SHA-256", "content": package.tarball_sha256}],
        "licenses": [{"license": {"id": package.license}}],
    }


def sha256(body: bytes) -> str:
    """The hash in hexadecimal digits."""
    return hashlib.sha256(body).hexdigest()


def main(words: Sequence[str]) -> int:
    """Runs a command; its exit code."""
    match list(words):
        case ["pinned"]:
            print("\n".join(f"{each.name}@{each.version}" for each in pinned()))
        case ["take", *tarballs] if tarballs:
            for tarball in tarballs:
                try:
                    print(*take(Path(tarball), pinned(), FOLDER), sep="\n")
                except VendorError as error:
                    print(f"vendor: {error}", file=sys.stderr)
                    return 1
        case ["bill", file]:
            bill = with_vendored(json.loads(Path(file).read_text()), pinned())
            Path(file).write_text(json.dumps(bill, indent=2) + "\n")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
