"""Errors of the real binding's own class, with the codes and words of a real daemon (measured on 9.0)."""

from __future__ import annotations

import libvirt


def error(code: int, text: str, domain: int = libvirt.VIR_FROM_QEMU) -> libvirt.libvirtError:
    """What libvirt raises: ``code`` is its ``VIR_ERR_``, ``domain`` the part that speaks (``VIR_FROM_``)."""
    found = libvirt.libvirtError(text)
    found.args = (text,)
    found.err = (code, domain, text, libvirt.VIR_ERR_ERROR, text, None, None, -1, -1)
    return found


def no_domain(uuid: str, name: str = "") -> libvirt.libvirtError:
    """Error 42: there is no such VM, or not any more."""
    named = f" ({name})" if name else ""
    return error(libvirt.VIR_ERR_NO_DOMAIN, f"Domain not found: no domain with matching uuid '{uuid}'{named}")


def not_running() -> libvirt.libvirtError:
    """Error 55: the VM is shut off."""
    return error(libvirt.VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: domain is not running")


def read_only(function: str) -> libvirt.libvirtError:
    """Error 29: the connection may not write."""
    text = f"operation forbidden: read only access prevents {function}"
    return error(libvirt.VIR_ERR_OPERATION_DENIED, text, libvirt.VIR_FROM_DOMAIN)


def lock_timeout(holder: str) -> libvirt.libvirtError:
    """Error 68: the VM's job lock was held for all of 30 s."""
    text = f"Timed out during operation: cannot acquire state change lock (held by monitor={holder})"
    return error(libvirt.VIR_ERR_OPERATION_TIMEOUT, text, libvirt.VIR_FROM_NONE)


def connection_lost(text: str) -> libvirt.libvirtError:
    """What the RPC client says of a connection that ended during the call or before."""
    if text.startswith("End of file"):
        return error(libvirt.VIR_ERR_SYSTEM_ERROR, text, libvirt.VIR_FROM_RPC)
    return error(libvirt.VIR_ERR_INTERNAL_ERROR, f"internal error: {text}", libvirt.VIR_FROM_RPC)
