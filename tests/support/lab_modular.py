"""The modular daemon virtqemud, which Debian does not package, built from the source package of a release's own libvirt.

It loads the release's own libvirt and QEMU driver: only the daemons' executables are built.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from scripts import debian_root
from tests.support.lab_process import LabError, run

PROGRAMS: Final = ("virtqemud", "virtproxyd")
BUILD_PACKAGES: Final = (
    *("meson", "gcc", "libc6-dev", "pkgconf", "xz-utils", "gettext", "xsltproc", "libxml2-utils", "python3-docutils", "libglib2.0-dev"),
    *("libgnutls28-dev", "libxml2-dev", "libtirpc-dev", "libjson-c-dev", "libnl-3-dev", "libnl-route-3-dev", "libpciaccess-dev"),
)
FEATURES: Final = ("driver_libvirtd", "driver_remote", "driver_qemu", "json_c", "libnl")
MESON: Final = " ".join(
    (
        "meson setup build --auto-features=disabled -Dtests=disabled -Ddocs=disabled -Dinit_script=none",
        *(f"-D{name}=enabled" for name in FEATURES),
        "--prefix=/usr --libdir=lib/x86_64-linux-gnu --sysconfdir=/etc --localstatedir=/var -Drunstatedir=/run",
    )
)
# A mirror may lack the description of the source package, without which apt fails; apt has checked each file that it leaves.
FETCH: Final = "cd /root && { apt-get -qq -o APT::Sandbox::User=root source --download-only libvirt || ls libvirt_*.orig.tar.xz; }"
COMMANDS: Final = (
    f"apt-get -qq -y --no-install-recommends install {' '.join(BUILD_PACKAGES)} && {FETCH}",
    f"cd /root && tar -xf libvirt_*.orig.tar.xz && cd libvirt-*/ && {MESON} && ninja -C build {' '.join(f'src/{name}' for name in PROGRAMS)}",
)
COPY_SECONDS: Final = 120.0


def build(root: Path, programs: Path) -> None:
    """Leave PROGRAMS in the new folder ``programs``; the build takes a copy of the release's ``root``, and minutes."""
    work, fresh = programs.with_suffix(".build"), programs.with_suffix(".new")
    for folder in (work, fresh):
        shutil.rmtree(folder, ignore_errors=True)
    run(["cp", "-a", str(root), str(work)], COPY_SECONDS)
    release = (work / "etc/apt/sources.list").read_text()
    (work / "etc/apt/sources.list.d/source.list").write_text(release.replace("deb ", "deb-src ", 1))
    try:
        debian_root.with_apt(work, " && ".join(COMMANDS))
    except debian_root.RootError as error:
        raise LabError(f"no modular daemon of {root.name}: {error}") from error
    fresh.mkdir()
    for name in PROGRAMS:
        (found,) = work.glob(f"root/libvirt-*/build/src/{name}")
        shutil.copy2(found, fresh)
    shutil.rmtree(work)
    fresh.rename(programs)
