"""
Which servers may be connected to, by an operator's rules.

What asks for a connection may be a stranger's request, and the machine that
makes it may reach what the stranger may not: a metadata service, a database on
the loopback address, a socket of the container runtime.  So the rules are held
against the very address that is handed to ``connect()``: a name is looked up
once, and no answer of the look-up counts but the one that is used.
"""

from __future__ import annotations

import ipaddress
import os.path
import re
from collections.abc import Iterable, Sequence
from typing import Final

import attrs
import idna

from ..errors import NotAllowed
from ..smtp.grammar import MAX_DOMAIN
from ..smtp.policy import Server

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_UNIX: Final = "unix:"
_PORT: Final = re.compile(r"(.*):(\d{1,5})", re.ASCII | re.DOTALL)
_IN_BRACKETS: Final = re.compile(r"\[([^\[\]/]+)(?:\](/\d{1,3})?|(/\d{1,3})\])", re.ASCII)
#: An address or a network, as far as its characters tell.  ``10.0.*`` is one
#: too, for as a name it would fit ``10.0.evil.example``.
_NUMERIC: Final = re.compile(r"[\d.*]*\d[\d.*]*(?:/.*)?|.*:.*|.*/.*", re.ASCII | re.DOTALL)
_NAME: Final = re.compile(r"(?:[A-Za-z0-9_*\-]+\.)*[A-Za-z0-9_*\-]+\.?", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

#: Addresses that carry an IPv4 address to which some machine on the way will
#: hand the packets: NAT64 (RFC 6052 section 2.1, RFC 8215) and what was called
#: "IPv4-compatible" (RFC 4291 section 2.5.5.1), in the last 32 bits.
_CARRY_IPV4: Final = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")

_LOOPBACK: Final = ipaddress.IPv4Address("127.0.0.1")
_LOOPBACK6: Final = ipaddress.IPv6Address("::1")


def _between_stars(text: str) -> tuple[str, ...]:
    return tuple(re.sub(r"\*+", "*", text).split("*"))


@attrs.frozen
class _Glob:
    """A text in which ``*`` stands for any characters, none among them."""

    parts: tuple[str, ...] = attrs.field(converter=_between_stars)

    @property
    def fits_all(self) -> bool:
        return self.parts == ("", "")

    def fits(self, text: str) -> bool:
        """In time linear in the text's length for each ``*``: it may be a stranger's."""
        first, *rest = self.parts
        if not rest:
            return text == first
        *middle, last = rest
        at = len(first)
        for part in middle:
            at = text.find(part, at)
            if at < 0:
                return False
            at += len(part)
        return text.startswith(first) and text.endswith(last) and len(text) - at >= len(last)


@attrs.frozen
class Pattern:
    """
    One rule of :class:`Access`; :meth:`parse` makes them.

    :ivar text: the rule as it was given.
    """

    text: str
    _name: _Glob | None = None
    _network: _Network | None = None
    _path: _Glob | None = None
    _port: int | None = None

    def __str__(self) -> str:
        return self.text

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """
        A rule from a name, an address, a network or a path, each with an
        optional port: ``mx.example``, ``*.example:25``, ``192.0.2.1``,
        ``10.0.0.0/8:25``, ``2001:db8::/32``, ``[2001:db8::1]:25``,
        ``[2001:db8::/32]:25``, ``unix:/run/*/lmtp``.

        ``*`` stands for any characters of a name or a path, dots and slashes
        too; alone, it is every server but UNIX sockets.  Names are compared
        without regard to case and to a dot at the end.  A UNIX socket has no
        port, so one behind its path means nothing.

        :raises ValueError: telling what was expected.
        """
        if not text or _CONTROL.search(text):
            raise ValueError(
                f"expected a name, an address, a network such as 10.0.0.0/8 or unix:/path, got {text!r}"
            )
        if text.startswith(_UNIX):
            return cls(text, path=_path_of(text))
        host, port = _without_port(text)
        if host.startswith("[") or _NUMERIC.fullmatch(host):
            return cls(text, network=_network_of(host, text), port=port)
        return cls(text, name=_name_of(host, text), port=port)

    @property
    def on_addresses(self) -> bool:
        """Whether it is an address or a network."""
        return self._network is not None

    def fits_port(self, port: int) -> bool:
        """Whether it says nothing else of the port."""
        return self._port is None or self._port == port

    def fits_name(self, name: str | None) -> bool:
        """Whether it fits a name as :func:`_plain` gives it; None for a host that is an address."""
        if self._name is None:
            return False
        return self._name.fits_all or (name is not None and self._name.fits(name))

    def fits_address(self, address: _Address) -> bool:
        """Whether it fits an address; zones (RFC 4007) make no difference."""
        return self._network is not None and address in self._network

    def fits_path(self, path: str) -> bool:
        """Whether it fits the path of a UNIX socket."""
        return self._path is not None and self._path.fits(path)


class Access:
    """
    Which servers may be connected to.

    A server is allowed by its name as the request has it, or by the address
    that is really connected to.  What is denied is held against both, and
    wins.  Of a name with several addresses those that are not allowed are left
    out.  All else is :class:`~twisted_smtpclient.errors.NotAllowed`, before
    anything is sent to the server; a name that no rule can let pass, whatever
    its addresses, is not even looked up.

    Addresses count as what they come to: ``::ffff:10.0.0.1`` as ``10.0.0.1``;
    ``0.0.0.0`` and ``::``, at which the kernel connects to this machine, as
    the loopback address.  What is denied is denied too where an IPv6 address
    carries it (6to4, Teredo, NAT64's well-known prefixes).

    A UNIX socket has its path for a name, and where the path's symbolic links
    lead to for an address; that is where is connected to.  One with ``.``,
    ``..`` or ``//`` in it is never allowed.

    An endpoint of the application's connects by itself, so there the name
    alone decides, as if it had no address.

    Rules are strings, each with an optional port: names (``mx.example``,
    ``*.example:25``), addresses and networks (``192.0.2.1``,
    ``10.0.0.0/8:25``, ``[2001:db8::/32]:25``), paths (``unix:/run/*/lmtp``).
    ``*`` stands for any characters, dots and slashes too; alone, it is every
    server but UNIX sockets.

    :param allow: rules; without one, every server but UNIX sockets.
    :param deny: rules that win over them.
    :raises ValueError: telling what is wrong with a rule.
    """

    def __init__(self, allow: Iterable[str | Pattern] = (), deny: Iterable[str | Pattern] = ()) -> None:
        self.allow = tuple(map(_pattern, allow)) or (Pattern.parse("*"),)
        self.deny = tuple(map(_pattern, deny))

    def __repr__(self) -> str:
        return f"<Access: allow {' '.join(map(str, self.allow))}; deny {' '.join(map(str, self.deny))}>"

    def check(self, server: Server) -> str | None:
        """
        What can be said before a look-up.

        :returns: the path to connect to, where it is a UNIX socket.
        :raises NotAllowed: it is not allowed, whatever its addresses are.
        """
        if server.unix_path is not None:
            return self._real_path(server, server.unix_path)
        name, port = _plain(server.host), server.port
        if name is None:
            self.admitted(server, [server.host])
            return None
        if any(rule.fits_name(name) for rule in self.deny if rule.fits_port(port)):
            raise _not_allowed(server, "a rule denies it")
        allow = [rule for rule in self.allow if rule.fits_port(port)]
        if any(rule.fits_name(name) for rule in allow):
            return None
        if server.endpoint is not None or not any(rule.on_addresses for rule in allow):
            raise _not_allowed(server, "no rule allows it")
        return None

    def admitted(self, server: Server, addresses: Sequence[str]) -> list[str]:
        """
        Those of a server's addresses that may be connected to, in their order.

        :param addresses: what the look-up of its name has given, or its host
            where that is an address.
        :raises NotAllowed: there are some, and none is allowed.
        :raises ValueError: one is no IP address.
        """
        name, port = _plain(server.host), server.port
        allow = [rule for rule in self.allow if rule.fits_port(port)]
        deny = [rule for rule in self.deny if rule.fits_port(port)]
        by_name = any(rule.fits_name(name) for rule in allow)
        left = [
            text
            for text in addresses
            if not _denied(deny, address := ipaddress.ip_address(text))
            and (by_name or _allowed(allow, address))
        ]
        if addresses and not left:
            raise _not_allowed(server, "its address is not allowed")
        return left

    def _real_path(self, server: Server, path: str) -> str:
        if {"", ".", ".."}.intersection(path.split("/")[1:]):
            raise _not_allowed(server, "its path has parts that are no names")
        real = os.path.realpath(path)
        ways = path, real
        if any(rule.fits_path(way) for rule in self.deny for way in ways):
            raise _not_allowed(server, "a rule denies it")
        if not any(rule.fits_path(way) for rule in self.allow for way in ways):
            raise _not_allowed(server, "no rule allows it")
        return real


def _not_allowed(server: Server, reason: str) -> NotAllowed:
    # It goes to whoever asked, so it tells no address that was looked up.
    return NotAllowed(f"Not allowed: {server}: {reason}")


# Addresses.


def _allowed(allow: Sequence[Pattern], address: _Address) -> bool:
    meant = _meant(address)
    return any(rule.fits_address(meant) for rule in allow)


def _denied(deny: Sequence[Pattern], address: _Address) -> bool:
    if any(rule.fits_name(None) for rule in deny):
        return True
    forms = [address, _meant(address), *_carried(address)]
    return any(rule.fits_address(form) for rule in deny for form in forms)


def _meant(address: _Address) -> _Address:
    """What is connected to, at an address."""
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_unspecified:
        return _LOOPBACK if address.version == 4 else _LOOPBACK6
    return address


def _carried(address: _Address) -> list[_Address]:
    """IPv4 addresses that the packets to an IPv6 address may end up at."""
    if address.version == 4:
        return []
    carried: list[_Address | None] = [address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _CARRY_IPV4):
        carried.append(_meant(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
    return [each for each in carried if each is not None]


def _plain(host: str) -> str | None:
    """A name for comparing; None where the host is an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.lower().removesuffix(".")
    return None


# What a rule may be.


def _pattern(rule: str | Pattern) -> Pattern:
    return rule if isinstance(rule, Pattern) else Pattern.parse(rule)


def _without_port(text: str) -> tuple[str, int | None]:
    match = _PORT.fullmatch(text)
    # An IPv6 address has colons of its own, and a port only behind brackets.
    if match is None or (":" in match[1] and not match[1].startswith("[")):
        return text, None
    if not 1 <= int(match[2]) <= 65535:
        raise ValueError(f"expected a port from 1 to 65535, got {text!r}")
    return match[1], int(match[2])


def _path_of(text: str) -> _Glob:
    match = _PORT.fullmatch(text.removeprefix(_UNIX))
    path = match[1] if match is not None else text.removeprefix(_UNIX)
    if not path.startswith(("/", "*")):
        raise ValueError(f"expected unix: and an absolute path, got {text!r}")
    return _Glob(path)


def _network_of(host: str, text: str) -> _Network:
    match = _IN_BRACKETS.fullmatch(host)
    bare = host if match is None else match[1] + (match[2] or match[3] or "")
    address, _, prefix = bare.partition("/")
    try:
        if "%" in bare or (match is not None and ":" not in bare) or ("/" in bare and not prefix.isdecimal()):
            raise ValueError("not such an address")
        network: _Network = ipaddress.ip_network(bare)
    except ValueError as error:
        meant = _network_around(address, prefix)
        hint = f"; the network is {meant}" if meant else f" ({error})"
        raise ValueError(
            "expected an address or a network such as 10.0.0.0/8, 2001:db8::/32 or [2001:db8::1]:25, "
            f"got {text!r}{hint}"
        ) from None
    if network.version == 6 and network.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _network_around(address: str, prefix: str) -> _Network | None:
    """The network that was meant where an address in it stands before its prefix."""
    try:
        return ipaddress.ip_network((address, int(prefix)), strict=False)
    except ValueError:
        return None


def _name_of(host: str, text: str) -> _Glob:
    labels = [label if label.isascii() else _a_label(label, text) for label in host.split(".")]
    name = ".".join(labels)
    if len(name) > MAX_DOMAIN or not _NAME.fullmatch(name):
        raise ValueError(f"expected a name such as mx.example or *.example, got {text!r}")
    return _Glob(name.lower().removesuffix("."))


def _a_label(label: str, text: str) -> str:
    # Of a part of a label there is no A-label.
    if "*" not in label:
        try:
            return idna.encode(label, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            pass
    raise ValueError(f"expected a name such as mx.example or *.example, got {text!r}")
