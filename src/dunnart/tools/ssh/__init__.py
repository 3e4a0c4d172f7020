"""`dunnart ssh` and `dbclient`: a person's or a script's way to another machine, and the reader of ssh_config."""
