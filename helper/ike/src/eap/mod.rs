//! EAP inside IKE_AUTH (RFC 3748, RFC 7296 section 2.16).
