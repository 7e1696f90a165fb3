//! Namespaces, links, NAT routers, strongSwan, DHCP and DNS servers for end-to-end tests.
