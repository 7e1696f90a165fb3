//! Who this machine is to a DHCP server: `chaddr` and client identifier (RFC 3456 section 4.1).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The hardware type of an IPsec tunnel mode virtual interface.
pub const HTYPE: u8 = 31;

/// Octets of the `chaddr` field.
const CHADDR_LEN: usize = 16;

/// A `chaddr`, as long as `hlen` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareAddress(Vec<u8>);

/// A network interface of this machine, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanInterface {
    /// Its number in the system.
    pub number: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Whether it has a carrier.
    pub active: bool,
}

impl HardwareAddress {
    /// Chooses among the machine's interfaces: the lowest-numbered active one's MAC address, else the lowest-numbered one's,
    /// else a locally administered address from `outer`, the IPv4 address that gives connectivity, and `number`, that
    /// interface's number.
    ///
    /// It is to be kept by the caller: it must not change with the interfaces.
    #[must_use]
    pub fn choose(interfaces: &[LanInterface], outer: Ipv4Addr, number: u8) -> Self {
        let usable = interfaces.iter().filter(|interface| interface.mac != [0; 6]);
        match usable.min_by_key(|interface| (!interface.active, interface.number)) {
            Some(interface) => Self(interface.mac.to_vec()),
            None => {
                let mut octets = vec![0x40, 0x00];
                octets.extend(outer.octets());
                octets.push(number);
                Self(octets)
            }
        }
    }

    /// An address that is known from before; `None` when it is empty or longer than the field.
    #[must_use]
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        (1..=CHADDR_LEN).contains(&octets.len()).then(|| Self(octets.to_vec()))
    }

    /// Its octets, 1 to 16.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

/// The client identifier (option 61), unique and persistent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientIdentifier {
    /// Hardware type and address.
    Hardware,
    /// A fully qualified domain name or a user's NAI, and the number of the interface.
    Name {
        /// The name.
        name: String,
        /// The interface's number.
        interface: u8,
    },
}

impl ClientIdentifier {
    /// The option's content.
    #[must_use]
    pub fn octets(&self, hardware: &HardwareAddress) -> Vec<u8> {
        match self {
            Self::Hardware => [&[HTYPE], hardware.octets()].concat(),
            // Type 0: not a hardware address (RFC 2132 section 9.14).
            Self::Name { name, interface } => [&[0], name.as_bytes(), &[*interface]].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    fn interface(number: u32, last: u8, active: bool) -> LanInterface {
        LanInterface { number, mac: [2, 0, 0, 0, 0, last], active }
    }

    #[test]
    fn the_lowest_numbered_active_interface_gives_the_address() {
        let interfaces = [interface(4, 4, true), interface(2, 2, false), interface(3, 3, true)];
        assert_eq!(HardwareAddress::choose(&interfaces, OUTER, 0).octets(), [2, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn without_an_active_one_the_lowest_numbered_interface_gives_it() {
        let interfaces = [interface(4, 4, false), interface(2, 2, false)];
        assert_eq!(HardwareAddress::choose(&interfaces, OUTER, 0).octets(), [2, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn without_any_it_is_made_from_the_outer_address() {
        let expected = [0x40, 0x00, 192, 0, 2, 7, 5];
        assert_eq!(HardwareAddress::choose(&[], OUTER, 5).octets(), expected);
        let nameless = LanInterface { number: 1, mac: [0; 6], active: true };
        assert_eq!(HardwareAddress::choose(&[nameless], OUTER, 5).octets(), expected);
    }

    #[test]
    fn identifiers_say_which_kind_they_are() {
        let hardware = HardwareAddress::from_octets(&[2, 0, 0, 0, 0, 3]).unwrap();
        assert_eq!(ClientIdentifier::Hardware.octets(&hardware), [31, 2, 0, 0, 0, 0, 3]);
        let named = ClientIdentifier::Name { name: "a@b.c".into(), interface: 9 };
        assert_eq!(named.octets(&hardware), [0, b'a', b'@', b'b', b'.', b'c', 9]);
    }

    #[test]
    fn an_address_that_does_not_fit_the_field_is_refused() {
        assert_eq!(HardwareAddress::from_octets(&[]), None);
        assert_eq!(HardwareAddress::from_octets(&[1; 17]), None);
    }
}
