"""The wire format: RFC 4251 §5 data types, and the messages built from them."""
