"""Threads for hashes of passwords, which take memory on purpose: 16 MiB for yescrypt's usual cost, 64 for Argon2id's.

More of them than processors would take no less time, but so much memory that who knows no password could have the
system end the server for it.
"""

from __future__ import annotations

import os

from dunnart.runtime.pool import ThreadPool

HASHING = ThreadPool("dunnart-hashing", min(os.cpu_count() or 1, 4), 1000)
