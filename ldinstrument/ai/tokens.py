"""Sealed tokens: a payload that only who has the secret can make or read, safe in a URL.

`<body>.<signature>`: the body is a nonce and the payload, JSON, compressed where that is shorter,
encrypted by AES-256-GCM of `cryptography`. The signature over the body is itsdangerous's, so that a
changed token is told from one of another secret. Each has a key of its own, derived from the
secret.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..diagnostics import raise_if_interrupted
from ..errors import missing_extra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SALT = "ldinstrument.feedback"
_NONCE = 12
"""Bytes: what AES-GCM takes."""


class Forged(Exception):  # noqa: N818 - what it says of the token
    """The token was changed, or signed with another secret."""


def token_of(payload: Mapping[str, Any], known: Sequence[str]) -> str:
    """Return a token of *payload*, sealed and signed with the first of the *known* secrets.

    Raises:
        MissingExtra: itsdangerous or cryptography is not installed.
    """
    signer = _signer(known[0])
    nonce = secrets.token_bytes(_NONCE)
    plain = json.dumps(payload, separators=(",", ":")).encode()
    packed = zlib.compress(plain, 9)
    plain = b"z" + packed if len(packed) < len(plain) else b"j" + plain
    body = _encoded(nonce + _cipher(known[0]).encrypt(nonce, plain, None))
    return str(signer.sign(body).decode())


def read_token(token: str, known: Sequence[str]) -> tuple[str, Any]:
    """Return the id of *token*, which is in it and no two have, and its payload.

    Raises:
        MissingExtra: itsdangerous or cryptography is not installed.
        Forged: none of the *known* secrets has signed it.
    """
    for secret in known:
        body = _signed_body(token, secret)
        if body is not None:
            return _opened(body, secret)
    raise Forged


def _signed_body(token: str, secret: str) -> bytes | None:
    signer = _signer(secret)
    from itsdangerous import BadSignature
    from itsdangerous.encoding import base64_decode

    try:
        return bytes(base64_decode(signer.unsign(token)))
    except (BadSignature, UnicodeError):
        return None
    except Exception as error:  # itsdangerous's BadData: signed, yet no base64
        raise_if_interrupted(error)
        raise Forged from error


def _opened(body: bytes, secret: str) -> tuple[str, Any]:
    from cryptography.exceptions import InvalidTag

    nonce = body[:_NONCE]
    try:
        plain = _cipher(secret).decrypt(nonce, body[_NONCE:], None)
        packed, text = plain[:1], plain[1:]
        payload = json.loads(zlib.decompress(text) if packed == b"z" else text)
    except (ValueError, InvalidTag, zlib.error) as error:
        raise Forged from error
    return _encoded(nonce).decode(), payload


def _cipher(secret: str) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError:
        raise missing_extra("ai", "cryptography") from None
    key = HKDF(SHA256(), 32, salt=None, info=_SALT.encode())
    return AESGCM(key.derive(secret.encode()))


def _signer(secret: str) -> Any:
    try:
        from itsdangerous import Signer
    except ImportError:
        raise missing_extra("ai", "itsdangerous") from None
    # The default digest is SHA-1; "hmac" keeps the secret itself out of what is signed with.
    return Signer(secret, salt=_SALT, digest_method=hashlib.sha256, key_derivation="hmac")


def _encoded(data: bytes) -> bytes:
    from itsdangerous.encoding import base64_encode

    return bytes(base64_encode(data))
