//! macOS: nothing is written yet; every operation says so.

crate::unsupported::unsupported_platform!("macOS");
