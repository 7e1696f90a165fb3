//! The privileged service.

fn main() {}
