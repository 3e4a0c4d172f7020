"""A session of files in a process of its own: what it loads, and when."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from dunnart.sftp.options import FileOptions

# As the fork server does it; then nothing can be loaded any more, as for a user who may not read Python's folder.
SERVE = """
import importlib.machinery, json, os, sys
import dunnart.plugins.file_session as session
options = session.FileOptions.from_json(json.loads(sys.argv[1]))
for module in options.modules:
    importlib.import_module(module)

sys.meta_path[:] = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter]
files = options.files(lambda event: print(event.kind, event.sha256[:8], event.error))
from dunnart.sftp.attributes import Attributes, group_name, user_name
from dunnart.sftp.files import OpenMode
if not options.read_only:
    file = files.open(b"/a.csv", OpenMode(write=True, create=True), Attributes())
    file.write(memoryview(b"hello"), 0)
    file.close()
    files.rename(b"/a.csv", b"/b.csv", replace=False)
print(user_name(os.getuid()), group_name(os.getgid()), [name for name, _ in files.scan(b"/")])
"""


def serve(options: FileOptions) -> str:
    command = [sys.executable, "-c", SERVE, json.dumps(options.to_json())]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_all_is_loaded_before_a_session_begins(tmp_path: Path) -> None:
    options = FileOptions(root=str(tmp_path), atomic=True, quota_bytes=100, allow_names=("*.csv",), digest=True)
    assert "uploaded 2cf24dba" in serve(options)
    assert "b.csv" in serve(FileOptions(root=str(tmp_path), read_only=True))
