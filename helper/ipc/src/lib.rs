//! Messages and framing between the helper and its clients.
