"""What `dunnart sftp` and `dunnart scp` share: flags, destinations, connections, and the person at the terminal."""
