"""Ansible's modules that move files, by each way in which it moves them."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.interop.support import MIB, SECONDS, Served, environment, make_blob, missing
from tests.interop.tools import HOST, digest, ssh_config

MOVING = """\
- hosts: all
  gather_facts: false
  tasks:
    - copy: {{src: "{blob}", dest: "{there}/copy", mode: "0604"}}
    - fetch: {{src: "{there}/copy", dest: "{back}", flat: true}}
"""
MORE = """\
    - file: {{path: "{there}/a folder", state: directory, mode: "0750"}}
    - file: {{src: copy, dest: "{there}/soft", state: link}}
"""


@pytest.mark.timeout(3 * SECONDS)  # each task starts Python a few times over
@pytest.mark.parametrize("method", ["sftp", "scp", "piped"])
def test_copy_fetch_and_file(files: Served, tmp_path: Path, method: str) -> None:
    ansible = Path(sys.executable).with_name("ansible-playbook")
    if not ansible.exists():
        missing("ansible-core")
    blob = make_blob(tmp_path / "blob", MIB + 3)
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    playbook = tmp_path / "playbook.yml"
    playbook.write_text((MOVING + MORE * (method == "sftp")).format(blob=blob.path, there=there, back=back))
    configuration = tmp_path / "ansible.cfg"
    configuration.write_text("[defaults]\n")  # nobody else's
    # As it comes: one connection for all, kept open by a process of ssh's, and compression. Sockets want a short path.
    with tempfile.TemporaryDirectory() as short:
        shared = ["-o", f"ControlPath={short}/c", "-F", str(ssh_config(files))]
        settings = {
            "ANSIBLE_SSH_ARGS": f"-C -o ControlMaster=auto -o ControlPersist=30s -o ControlPath={short}/c",
            "ANSIBLE_SSH_COMMON_ARGS": f"-F {ssh_config(files)}", "ANSIBLE_SSH_TRANSFER_METHOD": method,
            "ANSIBLE_CONFIG": str(configuration), "ANSIBLE_HOME": str(tmp_path / "ansible"), "LC_ALL": "C.UTF-8",
            "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"), "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_PIPELINING": "false", "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_SCP_EXTRA_ARGS": "-O",  # it quotes names for a shell, as the protocol of old wants them
        }  # fmt: skip
        try:
            done = subprocess.run(
                [ansible, "-i", f"{HOST},", playbook], capture_output=True, text=True, timeout=2 * SECONDS, check=False,
                env=environment(tmp_path, **settings), stdin=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            subprocess.run(["ssh", *shared, "-O", "exit", HOST], capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    recap = dict(re.findall(r"(\w+)=(\d+)", done.stdout.splitlines()[-2] + done.stdout.splitlines()[-1]))
    tasks = "4" if method == "sftp" else "2"
    assert (recap["ok"], recap["changed"], recap["failed"]) == (tasks, tasks, "0"), done.stdout
    assert digest(there / "copy") == digest(back) == blob.sha256
    assert (there / "copy").stat().st_mode & 0o777 == 0o604
    if method == "sftp":
        assert (there / "a folder").stat().st_mode & 0o777 == 0o750
        assert (there / "soft").readlink() == Path("copy")
