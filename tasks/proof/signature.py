"""The signature of a deployed folder, made by OpenSSF's model-signing with the user's own key.

It is a sigstore bundle: an envelope (DSSE) around a statement with the SHA-256 of each file, also
of the manifest. So the manifest need not, and could not, list the signature. model-signing is
imported only to sign, and to check which key signed a folder.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.config.tables import MAKE_KEY
from tasks.records.listing import BESIDE, MANIFEST, MATERIALS, SIGNATURE, STATEMENT
from tasks.system.errors import StageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

PASSPHRASE = "SIGN_KEY_PASSPHRASE"  # in the environment
PACKAGES = ("model_signing", "cryptography")

# Files written after the others, so that a statement about the others cannot cover them.
ABOUT = (STATEMENT, MATERIALS, MANIFEST)

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

_asking = threading.Lock()  # models are deployed in parallel
_passphrases: dict[Path, bytes] = {}


class CannotCheck(StageError):
    """The key or the package that a check needs is missing."""


class OtherFiles(StageError):
    """A signature is valid, but covers other files than those in the folder."""


class Signed(NamedTuple):
    """The content of a signature: the SHA-256 of each file, and of the signer's public key."""

    files: Mapping[str, str]
    signer: str


def read(path: Path) -> Signed:
    """Read a signature, without checking who made it.

    :raises StageError: when the file is not a signature by a key.
    """
    try:
        bundle = json.loads(path.read_bytes())
        payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True))
        signer = bundle["verificationMaterial"].get("publicKey", {}).get("hint")
        entries = payload["predicate"]["resources"]
        files = {str(each["name"]): str(each["digest"]) for each in entries}
        algorithms = {each["algorithm"] for each in entries}
    except json.JSONDecodeError as error:
        raise StageError(f"{path.name} was cut off or edited: it is not JSON ({error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StageError(
            f"{path.name} is not a signature of model-signing, or was edited: {error!r}"
        ) from error
    if not isinstance(signer, str) or algorithms - {"sha256"}:
        raise StageError(
            f"{path.name} was not made with a key and SHA-256, as this build signs; check it with "
            "the command of model-signing"
        )
    return Signed(files, signer)


def check_signer(signed: Signed, folder: Path, public_key: Path) -> None:
    """Check that a key made a signature.

    :param folder: the folder of the signature and the files that it covers.
    :raises CannotCheck: when the key or model-signing is missing.
    :raises OtherFiles: when it covers other files than those in the folder.
    :raises StageError: when another key made it, or it was edited since.
    """
    own = fingerprint(_public_key(public_key))
    if own != signed.signer:
        raise StageError(
            f"{SIGNATURE} was made by another key: expected {own[:16]}… ({public_key}), found "
            f"{signed.signer[:16]}…"
        )
    _verify(folder, folder / SIGNATURE, public_key)


def _verify(folder: Path, signature: Path, public_key: Path) -> None:
    """Let model-signing check the signature and the files that it covers; see `check_signer`."""
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    try:
        config.set_ignore_unsigned_files(True).verify(folder, signature)
    except InvalidSignature as error:
        raise StageError(f"{SIGNATURE} was edited: this key did not sign its content") from error
    except Exception as error:  # from a parser, or a ValueError about a file
        raise OtherFiles(f"model-signing refuses {SIGNATURE}: {error}") from error


def sign(files: Mapping[str, Path | bytes], key: Path, earlier: Path, scratch: Path) -> str:
    """Sign files, and return the text of the signature.

    :param files: contents or paths, by the names under which they are deployed.
    :param earlier: the signature of an earlier deployment, which is kept if it covers the same
        files, by the same key, because each signing gives another text.
    :param scratch: an empty folder, in the file system of the files.
    :raises StageError: when the key cannot be used, or model-signing is not installed.
    """
    private, passphrase = private_key(key)
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from model_signing import hashing, signing

    folder, made, public = scratch / "signed", scratch / SIGNATURE, scratch / "public.pem"
    for name, content in files.items():
        _place(content, folder / name)
    public.write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    with suppress(OSError, StageError):
        signed = read(earlier)
        if signed.files.keys() == files.keys() and signed.signer == fingerprint(
            private.public_key()
        ):
            _verify(folder, earlier, public)
            return earlier.read_text()
    ignored = hashing.Config().set_ignored_paths(paths=[*BESIDE, SIGNATURE])
    signing.Config().use_elliptic_key_signer(
        private_key=key, password=passphrase
    ).set_hashing_config(ignored).sign(folder, made)
    return made.read_text()


def _place(content: Path | bytes, place: Path) -> None:
    """Write a content to a path, or hard-link its file there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        place.write_bytes(content)
        return
    try:
        os.link(content, place)
    except OSError:  # another file system, or a file system without links
        shutil.copyfile(content, place)


# --- keys ---


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """The SHA-256 of a public key in PEM, as model-signing writes it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def missing() -> str | None:
    """How to install model-signing; None if it is installed. Imports nothing of it."""
    from importlib.util import find_spec

    if find_spec("model_signing") and find_spec("OpenSSL"):
        return None
    return "model-signing is not installed: `uv sync --extra sign` installs it"


def _public_key(path: Path) -> EllipticCurvePublicKey:
    lacking = missing()
    if lacking:
        raise CannotCheck(f"cannot check who signed it: {lacking}")
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        content = path.read_bytes()
    except OSError as error:
        raise CannotCheck(f"--key {path} cannot be read: {error.strerror}") from error
    if b"PRIVATE KEY" in content:
        raise CannotCheck(
            f"--key {path} is a private key: expected the public key, which `openssl pkey -in "
            f"{path} -pubout` prints. Keep the private key to yourself."
        )
    try:
        key = load_pem_public_key(content)
    except ValueError as error:
        raise CannotCheck(f"--key {path} is not a public key in PEM") from error
    if not isinstance(key, EllipticCurvePublicKey):
        raise CannotCheck(
            f"--key {path} is not on an elliptic curve, as the keys that this build signs with"
        )
    return key


def private_key(path: Path) -> tuple[EllipticCurvePrivateKey, bytes | None]:
    """The key to sign with, and its passphrase if it has one; prompts for it once.

    :raises StageError: when the file is not such a key, or its passphrase is unavailable.
    """
    lacking = missing()
    if lacking:
        raise StageError(f"[sign] key: {lacking}.")
    with _asking:
        key = _load(path, _passphrases.get(path))
        if key is None:
            passphrase = _ask(path)
            key = _load(path, passphrase)
            _passphrases[path] = passphrase
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

        if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
            raise StageError(
                f"[sign] key: model-signing cannot sign with {path}: expected a key on the curve "
                f"{', '.join(_CURVES.values())}; {MAKE_KEY}."
            )
        return key, _passphrases.get(path)


def _load(path: Path, passphrase: bytes | None) -> Any:
    """Load a private key; None if it needs a passphrase and none is given."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(path.read_bytes(), passphrase)
    except TypeError:
        return None
    except (ValueError, UnsupportedAlgorithm) as error:
        what = "wrong passphrase" if passphrase else f"not a private key in PEM ({error})"
        raise StageError(f"[sign] key: {path}: {what}.") from error


def _ask(path: Path) -> bytes:
    """The passphrase of a key, from the environment or the terminal; it is never stored."""
    passphrase = os.environ.get(PASSPHRASE, "")
    if not passphrase:
        if not (sys.stdin and sys.stdin.isatty()):
            raise StageError(
                f"[sign] key: {path} has a passphrase, but there is no terminal to enter it. Set "
                f"{PASSPHRASE} in the environment, then run the same command again."
            )
        passphrase = getpass.getpass(f"\r\033[KPassphrase of {path}: ")
    return passphrase.encode()
