//! The operating system: interfaces, TUN device, routes, DNS.
