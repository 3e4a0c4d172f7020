"""`dunnart sftp`: files at a server, for a person or a batch of commands, with the command line of OpenSSH's sftp."""
