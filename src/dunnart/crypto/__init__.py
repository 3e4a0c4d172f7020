"""Packet ciphers, key exchange methods, compression and algorithm profiles, over pyca/cryptography."""
