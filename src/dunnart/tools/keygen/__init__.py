"""`dunnart keygen`: keys, certificates and lists of revoked keys, with the command line of OpenSSH's ssh-keygen."""
