"""Signs a record's configuration with a key that only this user has, so that its code can be trusted.

A record names code that its run imported, and reading it back imports that code again. For the user's own records that
needs no question; a record that another user made, or that was changed since, has no valid signature. The signature
does not cover the weights, which are never executed.
"""

import hashlib
import hmac
import json
import os
import sys
import tempfile
from pathlib import Path

SIGNATURE = "signature.json"
KEY_BYTES = 32
CONTEXT = b"framework-rl record 1"  # separates signatures of records from other uses of the key


def key_path() -> Path:
    """The path of the key, in the user's data folder of the platform."""
    if sys.platform == "win32":
        data = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "framework-rl" / "key"


def read_key() -> bytes | None:
    """The user's key; None if there is none."""
    try:
        key = key_path().read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        return None
    return key if len(key) == KEY_BYTES else None


def make_key() -> bytes:
    """The user's key, made if there is none: by one process only, and readable only by this user.

    Raises:
        OSError: it cannot be written.
    """
    key = read_key()
    if key is not None:
        return key
    try:
        path = key_path()
    except RuntimeError as error:
        raise OSError(str(error)) from None
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails where another process was first
        except FileExistsError:
            pass
        except OSError:  # no hard links here
            if not path.exists():
                os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    key = read_key()
    if key is None:
        raise OSError(f"{path} is not a key of {KEY_BYTES} bytes")
    return key


def sign(*contents: bytes) -> str:
    """The content of signature.json for these files' contents.

    Raises:
        OSError: there is no key, and none can be made.
    """
    return json.dumps({"hmac-sha256": _digest(make_key(), contents)}) + "\n"


def is_signed(directory: Path, *contents: bytes) -> bool:
    """Whether this user signed these contents, in this record."""
    key = read_key()
    try:
        written = json.loads((directory / SIGNATURE).read_bytes())["hmac-sha256"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
    return key is not None and isinstance(written, str) and _is_equal(written, _digest(key, contents))


def _digest(key: bytes, contents: tuple[bytes, ...]) -> str:
    digest = hmac.new(key, CONTEXT, hashlib.sha256)
    for content in contents:
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def _is_equal(written: str, expected: str) -> bool:
    return hmac.compare_digest(written.encode(), expected.encode())
