//! Authentication: pre-shared keys, signatures, certificates, identities (RFC 7296 section 2.15, RFC 7427).
