//! The messages and payloads of IKEv2 (RFC 7296 section 3).
