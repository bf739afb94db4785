"""Builds a wheel of the edgetl that is running, however it was installed, for devices without a package index.

The format is the packaging guide's "Binary distribution format" (PEP 427): the package and its ``.dist-info`` folder,
whose RECORD tells the sha256 of every file. Equal content gives equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path

import edgetl
from edgetl.errors import EdgetlError

_WHEEL = "Wheel-Version: 1.0\nGenerator: edgetl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows


def build_wheel() -> tuple[str, bytes]:
    """The wheel's file name and content.

    Raises:
        EdgetlError: edgetl runs without being installed.
    """
    try:
        installed = metadata.distribution("edgetl")
    except metadata.PackageNotFoundError as error:
        raise EdgetlError(
            "edgetl is not installed here, so there is nothing to install there; pip install it"
        ) from error
    stem = f"edgetl-{installed.version}"
    root = Path(edgetl.__file__).parent
    files = {
        f"edgetl/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name in ("METADATA", "entry_points.txt"):
        if (text := installed.read_text(name)) is not None:
            files[f"{stem}.dist-info/{name}"] = text.encode()
    files[f"{stem}.dist-info/WHEEL"] = _WHEEL.encode()
    record, lines = f"{stem}.dist-info/RECORD", []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    # RECORD lists itself without a digest, which it cannot contain.
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    return f"{stem}-py3-none-any.whl", _zip(files)


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            # The rights are rw-r--r--: an entry without any could not be read when unpacked.
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
