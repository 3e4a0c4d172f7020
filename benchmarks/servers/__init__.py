"""Peers that are libraries: the smallest server around each that runs commands as sshd would."""
