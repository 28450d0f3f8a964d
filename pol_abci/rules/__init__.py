"""What consensus is made of: bytes and integers in, bytes and integers out."""
