"""What produced a result (versions, device, data hash), and files and folders that are written whole or not at all.

`write_text` and `write_bytes` replace a file atomically; `read_text` reads a file from outside. `run_folder` fills a
temporary folder and renames it at the end; it replaces only folders that this package wrote. What a killed process left
behind is removed by the next one that writes in that place.
"""

from __future__ import annotations

from ntkdiag.provenance.environment import digest, digest_of, environment, versions
from ntkdiag.provenance.files import (
    is_file,
    is_folder,
    jsonable,
    read_text,
    write_bytes,
    write_json,
    write_text,
    written,
)
from ntkdiag.provenance.kept_parts import KeptParts, KeyedParts
from ntkdiag.provenance.run_folders import RUN_MARKERS, check_free, is_run, run_folder
from ntkdiag.provenance.unfinished import made_parent

__all__ = [
    "RUN_MARKERS",
    "KeptParts",
    "KeyedParts",
    "check_free",
    "digest",
    "digest_of",
    "environment",
    "is_file",
    "is_folder",
    "is_run",
    "jsonable",
    "made_parent",
    "read_text",
    "run_folder",
    "versions",
    "write_bytes",
    "write_json",
    "write_text",
    "written",
]
