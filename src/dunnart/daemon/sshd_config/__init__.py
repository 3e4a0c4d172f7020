"""sshd's configuration: read with sshd's own rules, and made ours.

`reading` makes directives of files, `keywords` says what each keyword is, `effective` which values a login has,
`translate` what they are here, `report` prints them as `sshd -T` does, and `importing` writes our TOML.
"""
