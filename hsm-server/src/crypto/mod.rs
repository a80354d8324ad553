//! The cryptography room.
