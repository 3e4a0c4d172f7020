"""Side by side with real servers: same machine, same run, same client, same work.

`python -m benchmarks` (or `make bench`) measures dunnart beside OpenSSH's sshd, Dropbear, asyncssh and paramiko in
paired rounds (A B C A B C ...) and writes a Markdown table and JSON to `benchmarks/results/`. Linux only, for /proc.
"""
