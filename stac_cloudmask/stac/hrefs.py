"""The rule for which hrefs may be read, and safe hrefs for messages.

Items may come from untrusted sources. The rule, for an item (or link) read from ``base``:

- Schemes are http, https, s3, gs and az, or a plain local path (``file:`` too). GDAL's own prefixes (``/vsi...``,
  ``DRIVER:...``), user info (``user:password@``), backslashes, control characters, spaces in URLs and non-ASCII hosts
  are refused, wherever the item comes from.
- A remote item never makes us read local files.
- A remote item may name hosts that are not public (loopback, link-local, private networks, single-label and
  ``.local`` or ``.internal`` names) only if it was read from that host itself, or `HrefRule.private_hosts` lists it.
- A local item, or one made in memory without a self href, is the user's own word: it may name any local file and any
  host. `HrefRule.local_roots` narrows local files to some folders (symbolic links followed), or to none.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

from stac_cloudmask.errors import UnsupportedItemError, redact

READABLE_URL: Final = re.compile(
    r"(https?|s3|gs|az)://(\[[\da-f:.]+\]|[\w.-]+)(?::\d{1,5})?(?:[/?#]\S*)?", re.ASCII | re.IGNORECASE
)
"""URLs that may be read: scheme and ASCII host, without user info and spaces."""
PRIVATE_SUFFIXES: Final = (".localhost", ".local", ".internal", ".localdomain", ".lan", ".home.arpa")
MAX_HREF: Final = 4096
MAX_ID: Final = 200
HARMLESS: Final = frozenset({"asset", "assets", "collection", "f", "format", "id", "item", "items", "versionid"})
"""Query parameters that identify a resource. Any other may be a signature or a credential."""


@dataclass(frozen=True, kw_only=True)
class HrefRule:
    """The user's settings for the rule of this module.

    Attributes:
        private_hosts: Hosts on private networks that remote items may refer to.
        local_roots: Folders that local items may read from; None for any, empty for none.
    """

    private_hosts: tuple[str, ...] = ()
    local_roots: tuple[str, ...] | None = None


DEFAULT_RULE: Final = HrefRule()


def is_remote(href: str) -> bool:
    """Return True for URLs; False for local paths and ``file:`` URLs."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", href) is not None and not is_file_url(href)


def is_file_url(href: str) -> bool:
    """Return whether an href is a ``file:`` URL in any legal spelling."""
    return href[:5].lower() == "file:"


def local_path(href: str) -> Path:
    """Return the path of a local path or ``file:`` URL; in a URL ``%20`` is a space, and ``file://a/b`` is ``a/b``."""
    if not is_file_url(href):
        return Path(href)
    return Path(url2pathname(re.sub(r"(?i)^file:(//(localhost(?=/))?)?", "", href)))


def check_href(href: str, *, base: str | None, rule: HrefRule = DEFAULT_RULE) -> str:
    """Return the absolute form of an href, if the rule of this module allows it.

    Args:
        href: Href in the item.
        base: Location of the item; None for one made in memory.
        rule: The user's settings for the rule.

    Raises:
        UnsupportedItemError: The href is refused; the message says why, without secrets.
    """
    if not isinstance(href, str) or not 0 < len(href) <= MAX_HREF:
        raise UnsupportedItemError(f"href {str(href)[:20]!r}... is not a text of 1 to {MAX_HREF} characters")
    if re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", href) or href.startswith("/vsi"):
        raise _refused(href, "it has backslashes, control characters, unpaired surrogates or a prefix of GDAL's")
    full = absolute(href, base)
    if base is not None and is_remote(base) and (not is_remote(full) or _is_local(href)):
        raise _refused(
            href,
            f"a remote item ({redact(base)}) may not name local files; an item beside its files is read by its path",
        )
    return _check_url(full, base, rule) if is_remote(full) else _check_path(full, rule)


def _is_local(href: str) -> bool:
    """Return whether an absolute path is local, so that no other host is contacted for it."""
    folder = os.path.dirname(href)  # noqa: PTH120  (text of an href)
    return href.startswith("/") and not href.startswith("//") and folder != "/" and is_folder(folder)


is_file: Final = os.path.isfile
is_folder: Final = os.path.isdir
"""Unlike the methods of ``Path``, these functions accept names that no file can have."""


def absolute(href: str, base: str | None) -> str:
    """Return an href resolved against ``base``, unchecked; unchanged if it cannot be resolved."""
    if is_remote(href) or base is None:
        return href
    if is_remote(base):
        scheme, rest = base.split("://", 1)  # urljoin knows the rules for http only
        try:
            joined = urljoin(f"http://{rest}", href)
        except ValueError:
            return href
        return joined.replace("http://", f"{scheme}://", 1) if joined.startswith("http://") else joined
    folder = local_path(base).absolute().parent
    path = os.path.normpath(folder / local_path(href))
    if "%" not in path or is_file_url(href) or is_file(path):
        return path
    decoded = os.path.normpath(folder / unquote(href))  # a URI reference, as STAC has it
    return decoded if is_file(decoded) else path


def _check_url(url: str, base: str | None, rule: HrefRule) -> str:
    parts = READABLE_URL.fullmatch(url)
    if parts is None:
        raise _refused(url, "URLs use http, https, s3, gs or az, with a plain host, without user info and spaces")
    host, own = parts[2].lower(), READABLE_URL.match(base or "")
    untrusted = base is not None and is_remote(base) and parts[1].lower().startswith("http")
    is_own = own is not None and own[2].lower() == host
    if untrusted and is_private(host) and not is_own and host.strip("[]") not in rule.private_hosts:
        raise _refused(url, f"a remote item may not name host {host!r} on a private network; private_hosts allows it")
    return url


def _check_path(path: str, rule: HrefRule) -> str:
    full = local_path(path)
    if not full.is_absolute():
        raise _refused(path, "it is relative and the item has no self href")
    if str(full).startswith("/vsi"):
        raise _refused(path, "it is a prefix of GDAL's, not a path")
    if rule.local_roots is not None:
        real = full.resolve()
        if not any(real.is_relative_to(Path(root).resolve()) for root in rule.local_roots):
            raise _refused(path, f"it lies outside of local_roots: {', '.join(rule.local_roots) or 'none'}")
    return str(full)


def is_private(host: str) -> bool:
    """Return whether a host is recognizably not public: a non-global address, or an intranet name.

    Addresses are recognized in any spelling that curl accepts (``127.1``, ``0x7f.1``, ``2130706433``).
    """
    name = host.strip("[]").rstrip(".").lower()
    try:
        address = ip_address(name.partition("%")[0] if ":" in name else socket.inet_aton(name))
    except (OSError, ValueError):
        return "." not in name or name.endswith(PRIVATE_SUFFIXES)
    public = getattr(address, "ipv4_mapped", None) or address
    return not public.is_global or public.is_multicast


def unsigned(href: str) -> str:
    """Return the href without user info and fragment, and without its query unless that is harmless."""
    parts = urlsplit(href)
    if not parts.scheme or not parts.netloc:
        return href
    names = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    query = parts.query if names <= HARMLESS else ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _refused(href: str, why: str) -> UnsupportedItemError:
    return UnsupportedItemError(f"href {redact(href)[:200]!r} is refused: {why}")


def safe_id(identifier: object, *, what: str = "item") -> str:
    """Return an id that is safe as part of a path.

    Raises:
        UnsupportedItemError: It has characters other than letters, digits, ``_.-``, or starts with ``.`` or ``-``.
    """
    if isinstance(identifier, str) and re.fullmatch(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{MAX_ID - 1}}}", identifier):
        return identifier
    raise UnsupportedItemError(
        f"{what} id {str(identifier)[:80]!r} cannot be part of a path: only letters, digits, '_', '.' and '-' can, "
        f"at most {MAX_ID}, not starting with '.' or '-'"
    )
