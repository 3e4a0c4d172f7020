"""The transport layer, RFC 4253: versions, key exchange, rekeying, EXT_INFO (RFC 8308), strict KEX and services.

A key exchange, from the server's side (the client's mirrors it):

    IDLE ─(either side's KEXINIT)─► OFFERED ─(their KEXINIT)─► EXCHANGE ─(their share)─► BUSY
      ▲                                         (group exchange: twice)      work? sign? │
      └──────────────(their NEWKEYS)────────── NEWKEYS ◄──(our reply and NEWKEYS)────────┘
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from dunnart.crypto.ciphers import CIPHERS, MACS, CipherSpec, Opener, Sealer
from dunnart.crypto.compression import Compressor, Decompressor
from dunnart.crypto.kex import GSSAPI_METHODS, KEX_METHODS, GroupExchange, KeyAgreement, derive_key, exchange_hash
from dunnart.errors import (
    DecodeError,
    HostKeyError,
    KeyFormatError,
    NegotiationError,
    RemoteProtocolError,
    UnexpectedMessage,
)
from dunnart.keys.public import PublicKey
from dunnart.protocol import negotiation, phases
from dunnart.protocol.events import KeysExchanged, SendingResumed
from dunnart.protocol.negotiation import Negotiated
from dunnart.protocol.phases import Kex, Role, Stage
from dunnart.protocol.questions import (
    GssapiKeyExchange,
    GssapiQuestion,
    GssapiStep,
    HostKeyQuestion,
    SignQuestion,
    WorkQuestion,
)
from dunnart.wire.encoding import Reader, boolean, mpint, string, uint32
from dunnart.wire.messages import (
    ExtInfo,
    KexExchangeInit,
    KexExchangeReply,
    KexGexGroup,
    KexGexInit,
    KexGexReply,
    KexGexRequest,
    KexGssComplete,
    KexGssContinue,
    KexGssInit,
    Message,
    ServiceRequest,
)

if TYPE_CHECKING:
    from dunnart.keys.certificate import Certificate
    from dunnart.protocol.core import Core

_NEWKEYS = bytes((phases.NEWKEYS,))
_EXTENSIONS_OF_SERVER = ((b"publickey-hostbound@openssh.com", b"0"), (b"ping@openssh.com", b"0"))
_EXTENSIONS_READ = frozenset(("server-sig-algs", "publickey-hostbound@openssh.com", "ping@openssh.com"))
_GEX_MINIMUM, _GEX_PREFERRED, _GEX_MAXIMUM = 2048, 3072, 8192


class HostKeyMismatch(RemoteProtocolError):
    """The server could not prove that the host key it showed is its own, or the client does not trust it."""

    disconnect_code = 9
    disconnect_text = "host key not verifiable"


class Transport:
    """Key exchanges of one connection. `core.stage` and `core.kex` say what may come; handlers see nothing else.

    Attributes:
        peer_version: the peer's identification line.
        extensions: what the peer's EXT_INFO said, of the extensions that we know.
    """

    __slots__ = (
        "_compression_in", "_compression_out", "_core", "_expected", "_gex", "_greeted", "_group", "_gssapi", "_method",
        "_negotiated", "_next_opener", "_next_sealer", "_own_kexinit", "_own_share", "_peer_kexinit",
        "_peer_wants_ext_info", "_rekey_at", "_skip_guess", "_started_at", "extensions", "peer_version", "rekeys",
    )  # fmt: skip

    def __init__(self, core: Core) -> None:
        self._core = core
        self.peer_version = b""
        self.extensions: dict[str, bytes] = {}
        self._rekey_at = math.inf
        self.rekeys = 0
        self._started_at = core.now
        self._peer_wants_ext_info = False
        self._greeted = False
        self._compression_out = self._compression_in = "none"
        self._next_sealer: tuple[Sealer, int] | None = None
        self._forget()

    def _forget(self) -> None:
        # What only a running exchange needs.
        self._own_kexinit = b""
        self._peer_kexinit = b""
        self._negotiated: Negotiated | None = None
        self._method: KeyAgreement | None = None
        self._group: GroupExchange | None = None
        self._gex = b""
        self._gssapi: tuple[bytes, bytes] | None = None  # the client's share, and our last token
        self._own_share: tuple[object, bytes] | None = None
        self._next_opener: tuple[Opener, int] | None = None
        self._expected: type[Message] | None = None
        self._skip_guess = False

    @property
    def deadline(self) -> float | None:
        """When the running exchange, or the next rekeying, is due."""
        core = self._core
        if core.stage is not Stage.CONNECTION:
            return None
        if core.kex is not Kex.IDLE:
            return self._started_at + core.config.limits.rekey_deadline_seconds
        return None if self._rekey_at == math.inf else self._rekey_at

    def rekey_due(self) -> bool:
        """Whether either direction's key has protected enough (RFC 4253 §9, 4344 §3), or for long enough."""
        core = self._core
        inbound, outbound = core.inbound, core.outbound
        packets = core.config.limits.rekey_packets
        return (
            inbound.bytes >= inbound.rekey_bytes
            or outbound.bytes >= outbound.rekey_bytes
            or inbound.packets >= packets
            or outbound.packets >= packets
            or core.now >= self._rekey_at
        ) and (core.kex is Kex.IDLE and core.stage is Stage.CONNECTION)

    def bound_keys(self) -> None:
        """Let the keys in use do as much as the limits now say; where that is more, it holds for the next ones."""
        core, limits = self._core, self._core.config.limits
        for each in (core.inbound, core.outbound):
            each.rekey_bytes = min(each.rekey_bytes, limits.rekey_bytes or each.rekey_bytes)
        self._rekey_at = core.now + (limits.rekey_seconds or math.inf)

    def start(self) -> None:
        """Send our version line and, without waiting, our KEXINIT."""
        if not self._core.config.identified:
            self._core.outbound.queue.append(self._core.config.version + b"\r\n")
        self.rekey()

    def rekey(self) -> None:
        """Send a KEXINIT, unless an exchange runs."""
        core = self._core
        if core.kex is not Kex.IDLE or self._next_sealer is not None:
            return
        first = core.stage is Stage.FIRST_KEX
        cookie, core.cookie = core.cookie or core.random(16), b""
        self._own_kexinit = b"\x14" + cookie + negotiation.offer(core.config.role, core.config.algorithms, first=first)
        self._started_at = core.now
        core.outbound.send(self._own_kexinit)
        core.kex = Kex.OFFERED
        core.blocked = True

    def check_deadline(self) -> None:
        """End a key exchange that takes too long, begin one that is due."""
        deadline = self.deadline
        if deadline is None or self._core.now < deadline:
            return
        if self._core.kex is not Kex.IDLE:
            raise NegotiationError("the key exchange took too long")
        self.rekey()

    # What comes in. The phase table has let it through.

    def receive(self, number: int, payload: memoryview) -> None:
        """Handle one of the messages 7, 20, 21 and 30-49."""
        if number == phases.KEXINIT:
            self._receive_kexinit(bytes(payload))
        elif number == phases.NEWKEYS:
            self._receive_newkeys(payload)
        elif number == phases.EXT_INFO:
            self._receive_ext_info(payload)
        elif self._skip_guess:
            self._skip_guess = False
        elif self._expected is None or number != self._expected.number:
            raise UnexpectedMessage(f"message {number} is not part of {self._negotiated and self._negotiated.kex}")
        else:
            self._receive_exchange(self._expected.decode(payload))

    def _receive_kexinit(self, payload: bytes) -> None:
        core = self._core
        role = core.config.role
        if self._next_sealer is not None:
            raise UnexpectedMessage("KEXINIT before our NEWKEYS of the last exchange")
        first = core.stage is Stage.FIRST_KEX
        settled = negotiation.settle(role, core.config.algorithms, core.config.limits, payload, first=first)
        if first:
            core.strict = settled.strict
            self._peer_wants_ext_info = settled.ext_info
            if core.strict and core.inbound.sequence != 1:
                raise UnexpectedMessage("strict KEX: KEXINIT was not the first packet")
        self.rekey()
        self._negotiated = settled.algorithms
        self._peer_kexinit = payload
        self._skip_guess = settled.guessed_wrong
        core.kex = Kex.EXCHANGE
        if (agreement := GSSAPI_METHODS.get(settled.algorithms.kex)) is not None:  # only servers offer it
            self._method = agreement
            self._expected = KexGssInit
            return
        method = KEX_METHODS[settled.algorithms.kex]
        if isinstance(method, GroupExchange):
            self._group = method
            self._expected = KexGexRequest if role is Role.SERVER else KexGexGroup
            if role is Role.CLIENT:
                self._gex = b"".join(map(uint32, (_GEX_MINIMUM, _GEX_PREFERRED, _GEX_MAXIMUM)))
                core.outbound.send(KexGexRequest(_GEX_MINIMUM, _GEX_PREFERRED, _GEX_MAXIMUM).encode())
            return
        self._method = method
        if role is Role.SERVER:
            self._expected = KexExchangeInit
        else:
            self._expected = KexExchangeReply
            self._offer_share()

    def _offer_share(self) -> None:
        # The client's half. It is computed here even where that is slow: only a client's own user waits for it.
        assert self._method is not None
        state, share = self._method.offer()
        self._own_share = (state, share)
        message = KexGexInit if self._group is not None else KexExchangeInit
        self._core.outbound.send(message(share).encode())

    def _receive_exchange(self, message: Message) -> None:
        core = self._core
        if isinstance(message, KexGexRequest):
            assert self._group is not None
            p, g = self._group.choose_group(message.minimum, message.preferred, message.maximum)
            self._gex = (
                b"".join(map(uint32, (message.minimum, message.preferred, message.maximum))) + mpint(p) + mpint(g)
            )
            self._method = self._group.group(p, g)
            self._expected = KexGexInit
            core.outbound.send(KexGexGroup(p, g).encode())
        elif isinstance(message, KexGexGroup):
            assert self._group is not None
            self._gex += mpint(message.p) + mpint(message.g)
            self._method = self._group.group(message.p, message.g)
            self._expected = KexGexReply
            self._offer_share()
        elif isinstance(message, KexExchangeInit | KexGexInit):
            self._respond(message.share)
        elif isinstance(message, KexGssInit):
            self._gssapi = message.share, b""
            self._ask_mechanism(GssapiKeyExchange(message.token, first=True))
        elif isinstance(message, KexGssContinue):
            self._ask_mechanism(GssapiKeyExchange(message.token))
        elif isinstance(message, KexExchangeReply | KexGexReply):
            assert self._method is not None
            assert self._own_share is not None
            self._finished(message, self._method.finish(self._own_share[0], message.share))

    def _ask_mechanism(self, step: GssapiKeyExchange) -> None:
        self._core.kex = Kex.BUSY
        self._core.ask(GssapiQuestion, self._mechanism_answered, step)

    def _mechanism_answered(self, reply: object) -> None:
        if not isinstance(reply, GssapiStep):
            raise NegotiationError(f"the GSS-API mechanism failed: {getattr(reply, 'detail', '')}")
        assert self._gssapi is not None
        if reply.complete:
            self._gssapi = self._gssapi[0], reply.data
            self._respond(self._gssapi[0])
        else:
            self._core.outbound.send(KexGssContinue(reply.data).encode())
            self._core.kex = Kex.EXCHANGE
            self._expected = KexGssContinue

    def _mechanism_signed(self, server_share: bytes, secret: bytes, digest: bytes, reply: object) -> None:
        if not isinstance(reply, GssapiStep):
            raise NegotiationError(f"the GSS-API mechanism failed: {getattr(reply, 'detail', '')}")
        assert self._gssapi is not None
        token = self._gssapi[1]
        last = boolean(bool(token)) + (string(token) if token else b"")
        self._core.outbound.send(KexGssComplete(server_share, reply.data, last).encode())
        self._derive_keys(secret, digest)
        self._send_newkeys()

    def _respond(self, share: bytes) -> None:
        assert self._method is not None
        self._core.kex = Kex.BUSY
        then = partial(self._responded, share)
        if self._method.expensive:
            self._core.ask(WorkQuestion, then, partial(self._method.respond, share))
        else:
            then(self._method.respond(share))

    def _exchange_hash(
        self, host_key: bytes, client_share: bytes, server_share: bytes, secret: bytes
    ) -> tuple[bytes, bytes]:
        """Give it, and what it is the hash of."""
        core = self._core
        versions = [string(self.peer_version), string(core.config.version)]
        kexinits = [string(self._peer_kexinit), string(self._own_kexinit)]
        if core.config.role is Role.CLIENT:
            versions.reverse()
            kexinits.reverse()
        assert self._method is not None
        data = b"".join(
            (*versions, *kexinits, string(host_key), self._gex, string(client_share), string(server_share), secret)
        )
        return exchange_hash(self._method.hash_name, data), data

    def _responded(self, client_share: bytes, result: object) -> None:
        # Server: our share and the secret are there; the exchange hash wants a signature.
        if not isinstance(result, tuple):
            raise NegotiationError("the key exchange could not be computed") from _cause(result)
        server_share, secret = result
        core = self._core
        assert self._negotiated is not None
        if self._gssapi is not None:  # RFC 4462 §2.1: no host key is shown, and K_S is empty
            digest, made_of = self._exchange_hash(b"", client_share, server_share, secret)
            core.server_key = b""
            then = partial(self._mechanism_signed, server_share, secret, digest)
            core.ask(GssapiQuestion, then, GssapiKeyExchange(digest=digest, made_of=made_of))
            return
        algorithm = self._negotiated.host_key
        config = core.config
        keys: tuple[PublicKey | Certificate, ...] = (*config.host_certificates, *config.host_keys)
        shown = next(key for key in keys if algorithm in key.signature_algorithms)
        digest, made_of = self._exchange_hash(shown.blob, client_share, server_share, secret)
        core.server_key = shown.blob
        if isinstance(shown, PublicKey):
            key = shown
        else:
            from dunnart.keys.certificate import plain_name

            key, algorithm = shown.key, plain_name(algorithm)
        core.ask(SignQuestion, partial(self._signed, server_share, secret, digest), key, algorithm, digest, made_of)

    def _signed(self, server_share: bytes, secret: bytes, digest: bytes, signature: object) -> None:
        if not isinstance(signature, bytes):
            raise NegotiationError("no signature by the host key") from _cause(signature)
        reply = KexGexReply if self._group is not None else KexExchangeReply
        self._core.outbound.send(reply(self._core.server_key, server_share, signature).encode())
        self._derive_keys(secret, digest)
        self._send_newkeys()

    def _finished(self, reply: KexExchangeReply | KexGexReply, secret: bytes) -> None:
        # Client: the secret is there; does the host key's signature hold, and is it the right key?
        from dunnart.keys.certificate import decode_public

        assert self._own_share is not None
        assert self._negotiated is not None
        core = self._core
        digest, _ = self._exchange_hash(reply.host_key, self._own_share[1], reply.share, secret)
        try:
            key = decode_public(reply.host_key)
            key.verify(self._negotiated.host_key, reply.signature, digest)
        except KeyFormatError as error:
            raise HostKeyMismatch(f"the host key did not sign the exchange: {error}") from error
        self._derive_keys(secret, digest)
        if core.server_key == reply.host_key:
            self._send_newkeys()
            return
        core.server_key = reply.host_key
        core.ask(HostKeyQuestion, self._host_key_checked, key)

    def _host_key_checked(self, trusted: object) -> None:
        if trusted is not True:
            raise HostKeyMismatch("the host key is not trusted") from HostKeyError("the host key is not trusted")
        self._send_newkeys()

    # New keys.

    def _derive_keys(self, secret: bytes, digest: bytes) -> None:
        """Make both directions' keys; each is taken into use at its NEWKEYS."""
        core = self._core
        core.session_id = core.session_id or digest
        chosen = self._negotiated
        assert chosen is not None
        assert self._method is not None
        derive = partial(derive_key, self._method.hash_name, secret, digest)
        server = core.config.role is Role.SERVER

        def direction(to_server: bool) -> tuple[CipherSpec, tuple[Any, ...]]:  # noqa: FBT001
            cipher = CIPHERS[chosen.cipher_to_server if to_server else chosen.cipher_to_client]
            mac = MACS.get(chosen.mac_to_server if to_server else chosen.mac_to_client)
            iv, key, mac_key = (b"A", b"C", b"E") if to_server else (b"B", b"D", b"F")
            session_id = core.session_id
            return cipher, (
                derive(key, session_id, cipher.key_bytes),
                derive(iv, session_id, cipher.iv_bytes) if cipher.iv_bytes else b"",
                mac,
                derive(mac_key, session_id, mac.key_bytes) if mac is not None else b"",
            )

        bound = core.config.limits.rekey_bytes
        cipher, keys = direction(server)
        self._next_opener = (cipher.opener(*keys), min(cipher.rekey_bytes, bound or cipher.rekey_bytes))
        cipher, keys = direction(not server)
        self._next_sealer = (cipher.sealer(*keys), min(cipher.rekey_bytes, bound or cipher.rekey_bytes))
        names = (chosen.compression_to_client, chosen.compression_to_server)
        self._compression_out, self._compression_in = names if server else reversed(names)
        core.kex = Kex.NEWKEYS

    def _send_newkeys(self) -> None:
        core = self._core
        assert self._next_sealer is not None
        core.outbound.send(_NEWKEYS)
        core.outbound.start_keys(*self._next_sealer, reset_sequence=core.strict)
        self._next_sealer = None
        self._compress_outbound()
        core.unblock()
        if not self._greeted:
            self._greeted = True
            if core.config.role is Role.CLIENT:
                core.send(ServiceRequest("ssh-userauth").encode())
            elif self._peer_wants_ext_info:
                core.send(self._ext_info())
        core.emit(SendingResumed())

    def _receive_newkeys(self, payload: memoryview) -> None:
        core = self._core
        if len(payload) != 1:
            raise DecodeError("NEWKEYS has a body")
        assert self._next_opener is not None
        assert self._negotiated is not None
        core.inbound.start_keys(*self._next_opener, reset_sequence=core.strict)
        self._compress_inbound()
        first = core.stage is Stage.FIRST_KEX
        if first:
            core.stage = Stage.EXT_INFO
        else:
            self.rekeys += 1
        core.kex = Kex.IDLE
        self._rekey_at = core.now + (core.config.limits.rekey_seconds or math.inf)
        core.emit(KeysExchanged(self._negotiated, first))
        self._forget()

    # Compression: zlib@openssh.com begins with the login, zlib at once (OpenSSH PROTOCOL §1.1).

    def _compresses(self, name: str) -> bool:
        return name == "zlib" or (name == "zlib@openssh.com" and self._core.stage is Stage.CONNECTION)

    def _compress_outbound(self) -> None:
        self._core.outbound.compressor = Compressor() if self._compresses(self._compression_out) else None

    def _compress_inbound(self) -> None:
        self._core.inbound.decompressor = Decompressor() if self._compresses(self._compression_in) else None

    def logged_in(self) -> None:
        """The user is in: delayed compression begins, and packets may be larger."""
        core = self._core
        core.inbound.packet_bytes = core.config.limits.packet_bytes
        if self._compression_out == "zlib@openssh.com":
            self._compress_outbound()
        if self._compression_in == "zlib@openssh.com":
            self._compress_inbound()

    # EXT_INFO.

    def _ext_info(self) -> bytes:
        extensions = (
            (b"server-sig-algs", ",".join(self._core.config.algorithms.user_key).encode()),
            *_EXTENSIONS_OF_SERVER,
        )
        return ExtInfo(len(extensions), b"".join(string(name) + string(value) for name, value in extensions)).encode()

    def _receive_ext_info(self, payload: memoryview) -> None:
        message = ExtInfo.decode(payload)
        reader = Reader(message.extensions)
        for _ in range(message.count):  # a short read ends a lying count (THREATS R8)
            name = reader.string().decode("ascii", "replace")
            value = reader.string()
            if name in _EXTENSIONS_READ:
                self.extensions[name] = value
        reader.end()


def _cause(result: object) -> BaseException | None:
    return result if isinstance(result, BaseException) else None
