//! Link cryptography, sans I/O.
