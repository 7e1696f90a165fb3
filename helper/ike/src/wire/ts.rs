//! Traffic Selector payloads (RFC 7296 section 3.13) and narrowing (section 2.9).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::WireError;
use crate::wire::reader::{Reader, len8, len16};

const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;
/// Octets before the addresses of a selector.
const FIXED: usize = 8;

/// A range of addresses of one family, a range of ports and a protocol: the traffic one end has.
///
/// The two addresses are of one family and in order; [`TrafficSelector::new`] sees to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    protocol: u8,
    start_port: u16,
    end_port: u16,
    start: IpAddr,
    end: IpAddr,
}

impl TrafficSelector {
    /// A selector; `None` when the addresses are of two families or out of order, or the ports are out of order (65535 to
    /// 0 means OPAQUE and is allowed).
    pub fn new(protocol: u8, start_port: u16, end_port: u16, start: IpAddr, end: IpAddr) -> Option<Self> {
        let ports_fit = start_port <= end_port || (start_port == u16::MAX && end_port == 0);
        let fits = start.is_ipv4() == end.is_ipv4() && start <= end && ports_fit;
        fits.then_some(TrafficSelector { protocol, start_port, end_port, start, end })
    }

    /// Everything to or from the addresses of a prefix; bits behind the prefix are ignored, a length too great for the
    /// family counts as the greatest.
    pub fn from_prefix(address: IpAddr, length: u8) -> Self {
        let (start, end) = match address {
            IpAddr::V4(v4) => {
                let host_bits = 32u32.saturating_sub(u32::from(length));
                let hosts = u32::MAX.checked_shr(32 - host_bits).unwrap_or(0);
                let bits = v4.to_bits();
                (Ipv4Addr::from_bits(bits & !hosts).into(), Ipv4Addr::from_bits(bits | hosts).into())
            }
            IpAddr::V6(v6) => {
                let host_bits = 128u32.saturating_sub(u32::from(length));
                let hosts = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
                let bits = v6.to_bits();
                (Ipv6Addr::from_bits(bits & !hosts).into(), Ipv6Addr::from_bits(bits | hosts).into())
            }
        };
        TrafficSelector { protocol: 0, start_port: 0, end_port: u16::MAX, start, end }
    }

    /// Everything to or from one address.
    pub fn host(address: IpAddr) -> Self {
        TrafficSelector::from_prefix(address, u8::MAX)
    }

    /// All IPv4 traffic.
    pub fn any_v4() -> Self {
        TrafficSelector::from_prefix(Ipv4Addr::UNSPECIFIED.into(), 0)
    }

    /// All IPv6 traffic.
    pub fn any_v6() -> Self {
        TrafficSelector::from_prefix(Ipv6Addr::UNSPECIFIED.into(), 0)
    }

    /// The same addresses, for one protocol and a range of ports.
    pub fn with_protocol(self, protocol: u8, start_port: u16, end_port: u16) -> Option<Self> {
        TrafficSelector::new(protocol, start_port, end_port, self.start, self.end)
    }

    /// The IP protocol; zero means any.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The first port.
    pub fn start_port(&self) -> u16 {
        self.start_port
    }

    /// The last port.
    pub fn end_port(&self) -> u16 {
        self.end_port
    }

    /// The first address.
    pub fn start(&self) -> IpAddr {
        self.start
    }

    /// The last address.
    pub fn end(&self) -> IpAddr {
        self.end
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4() && self.start <= address && address <= self.end
    }

    /// Whether all traffic of `other` is traffic of this one too.
    pub fn covers(&self, other: &TrafficSelector) -> bool {
        self.intersect(other) == Some(*other)
    }

    /// The traffic that both have; `None` when there is none.
    pub fn intersect(&self, other: &TrafficSelector) -> Option<TrafficSelector> {
        if self.start.is_ipv4() != other.start.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (ours, theirs) if ours == theirs => ours,
            (_, _) => return None,
        };
        let (start_port, end_port) = self.intersect_ports(other)?;
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        TrafficSelector::new(protocol, start_port, end_port, start, end)
    }

    /// The fewest prefixes that together are the address range, as address and length.
    pub fn prefixes(&self) -> Vec<(IpAddr, u8)> {
        match (self.start, self.end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => {
                let range = (u128::from(start.to_bits()), u128::from(end.to_bits()));
                split(range, 32)
                    .filter_map(|(bits, length)| {
                        Some((Ipv4Addr::from_bits(u32::try_from(bits).ok()?).into(), length))
                    })
                    .collect()
            }
            (IpAddr::V6(start), IpAddr::V6(end)) => split((start.to_bits(), end.to_bits()), 128)
                .map(|(bits, length)| (Ipv6Addr::from_bits(bits).into(), length))
                .collect(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Vec::new(),
        }
    }

    fn is_any_port(&self) -> bool {
        self.start_port == 0 && self.end_port == u16::MAX
    }

    fn is_opaque(&self) -> bool {
        self.start_port == u16::MAX && self.end_port == 0
    }

    /// OPAQUE is part of ANY, which RFC 4301 section 4.4.1.1 lets stand for both.
    fn intersect_ports(&self, other: &TrafficSelector) -> Option<(u16, u16)> {
        if self.is_any_port() {
            return Some((other.start_port, other.end_port));
        }
        if other.is_any_port() {
            return Some((self.start_port, self.end_port));
        }
        if self.is_opaque() || other.is_opaque() {
            let both = self.is_opaque() && other.is_opaque();
            return both.then_some((self.start_port, self.end_port));
        }
        let start = self.start_port.max(other.start_port);
        let end = self.end_port.min(other.end_port);
        (start <= end).then_some((start, end))
    }

    fn parse(kind: u8, protocol: u8, body: &[u8]) -> Result<Option<Self>, WireError> {
        let mut reader = Reader::new(body, "a traffic selector");
        let start_port = reader.u16()?;
        let end_port = reader.u16()?;
        let (start, end): (IpAddr, IpAddr) = match kind {
            TS_IPV4_ADDR_RANGE => (reader.array::<4>()?.into(), reader.array::<4>()?.into()),
            TS_IPV6_ADDR_RANGE => (reader.array::<16>()?.into(), reader.array::<16>()?.into()),
            _ => return Ok(None),
        };
        if !reader.is_empty() {
            return Err(WireError::BadLength { what: "a traffic selector", length: body.len() });
        }
        let selector = TrafficSelector::new(protocol, start_port, end_port, start, end);
        selector.map(Some).ok_or(WireError::Malformed { what: "a traffic selector" })
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let (kind, address) =
            if self.start.is_ipv4() { (TS_IPV4_ADDR_RANGE, 4) } else { (TS_IPV6_ADDR_RANGE, 16) };
        out.extend_from_slice(&[kind, self.protocol]);
        out.extend_from_slice(&len16(FIXED + 2 * address).to_be_bytes());
        out.extend_from_slice(&self.start_port.to_be_bytes());
        out.extend_from_slice(&self.end_port.to_be_bytes());
        for address in [self.start, self.end] {
            match address {
                IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
            }
        }
    }
}

impl std::fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.prefixes().as_slice() {
            [(address, length)] => write!(f, "{address}/{length}")?,
            _ => write!(f, "{}-{}", self.start, self.end)?,
        }
        if self.protocol != 0 || !self.is_any_port() {
            write!(f, "[{}/", self.protocol)?;
            if self.is_any_port() {
                f.write_str("any]")?;
            } else if self.is_opaque() {
                f.write_str("opaque]")?;
            } else if self.start_port == self.end_port {
                write!(f, "{}]", self.start_port)?;
            } else {
                write!(f, "{}-{}]", self.start_port, self.end_port)?;
            }
        }
        Ok(())
    }
}

/// The selectors of a TSi or TSr payload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrafficSelectors {
    /// The selectors; those of types that are not known are left out when read.
    pub selectors: Vec<TrafficSelector>,
}

impl TrafficSelectors {
    /// A payload of these selectors.
    pub fn new(selectors: Vec<TrafficSelector>) -> Self {
        TrafficSelectors { selectors }
    }

    /// Whether an address lies in any of the selectors.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.selectors.iter().any(|selector| selector.contains(address))
    }

    /// Whether each selector of `other` is covered by one of these.
    pub fn covers(&self, other: &TrafficSelectors) -> bool {
        other.selectors.iter().all(|inner| self.selectors.iter().any(|outer| outer.covers(inner)))
    }

    /// What remains of these selectors when cut to `allowed`; empty when nothing is common. Repetitions and selectors
    /// that another one covers are left out.
    pub fn narrow(&self, allowed: &TrafficSelectors) -> TrafficSelectors {
        let mut kept: Vec<TrafficSelector> = Vec::new();
        for wanted in &self.selectors {
            for allowed in &allowed.selectors {
                let Some(common) = wanted.intersect(allowed) else { continue };
                if kept.iter().any(|earlier| earlier.covers(&common)) {
                    continue;
                }
                kept.retain(|earlier| !common.covers(earlier));
                if kept.len() < usize::from(u8::MAX) {
                    kept.push(common);
                }
            }
        }
        TrafficSelectors { selectors: kept }
    }

    /// Reads the payload's body.
    ///
    /// # Errors
    /// A selector's length does not fit, its addresses or ports are out of order, or the count is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "a Traffic Selector payload");
        let count = reader.u8()?;
        reader.array::<3>()?;
        let mut selectors = Vec::new();
        for _ in 0..count {
            let kind = reader.u8()?;
            let protocol = reader.u8()?;
            let length = usize::from(reader.u16()?);
            let Some(inner) = length.checked_sub(4) else {
                return Err(WireError::BadLength { what: "a traffic selector", length });
            };
            selectors.extend(TrafficSelector::parse(kind, protocol, reader.take(inner)?)?);
        }
        if !reader.is_empty() {
            return Err(WireError::Malformed { what: "the number of traffic selectors" });
        }
        Ok(TrafficSelectors { selectors })
    }

    /// Writes the payload's body.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let count = len8(self.selectors.len());
        out.extend_from_slice(&[count, 0, 0, 0]);
        for selector in self.selectors.iter().take(usize::from(count)) {
            selector.emit(out);
        }
    }
}

/// Cuts a range of numbers of `width` bits into the fewest prefixes.
fn split((start, end): (u128, u128), width: u32) -> impl Iterator<Item = (u128, u8)> {
    let mut next = Some(start);
    std::iter::from_fn(move || {
        let start = next.filter(|start| *start <= end)?;
        // The largest block that begins here and does not reach beyond the end.
        let mut host_bits = start.trailing_zeros().min(width);
        while host_bits > 0 && u128::MAX.checked_shr(128 - host_bits).is_none_or(|hosts| hosts > end - start)
        {
            host_bits -= 1;
        }
        let hosts = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
        next = start.checked_add(hosts).and_then(|last| last.checked_add(1));
        Some((start, u8::try_from(width - host_bits).unwrap_or(u8::MAX)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str, length: u8) -> TrafficSelector {
        TrafficSelector::from_prefix(address.parse().unwrap(), length)
    }

    fn range(start: &str, end: &str) -> TrafficSelector {
        TrafficSelector::new(0, 0, u16::MAX, start.parse().unwrap(), end.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_prefix_is_the_range_of_its_addresses() {
        assert_eq!(prefix("10.1.2.3", 8), range("10.0.0.0", "10.255.255.255"));
        assert_eq!(prefix("10.1.2.3", 32), range("10.1.2.3", "10.1.2.3"));
        assert_eq!(prefix("10.1.2.3", 0), TrafficSelector::any_v4());
        assert_eq!(prefix("2001:db8::5", 32), range("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(prefix("2001:db8::5", 255), TrafficSelector::host("2001:db8::5".parse().unwrap()));
    }

    #[test]
    fn a_range_becomes_the_fewest_prefixes() {
        let prefixes = range("10.0.0.1", "10.0.0.6").prefixes();
        let text: Vec<String> =
            prefixes.iter().map(|(address, length)| format!("{address}/{length}")).collect();
        assert_eq!(text, ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]);
        assert_eq!(TrafficSelector::any_v6().prefixes(), [(Ipv6Addr::UNSPECIFIED.into(), 0)]);
        assert_eq!(TrafficSelector::any_v4().prefixes(), [(Ipv4Addr::UNSPECIFIED.into(), 0)]);
        assert_eq!(range("0.0.0.1", "255.255.255.255").prefixes().len(), 32);
    }

    #[test]
    fn narrowing_keeps_what_both_want_once() {
        let wanted = TrafficSelectors::new(vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()]);
        let allowed = TrafficSelectors::new(vec![
            prefix("10.0.0.0", 16),
            prefix("10.0.0.0", 8),
            prefix("10.9.0.0", 16),
        ]);
        assert_eq!(wanted.narrow(&allowed).selectors, [prefix("10.0.0.0", 8)]);
        let elsewhere = TrafficSelectors::new(vec![prefix("192.0.2.0", 24)]);
        assert!(elsewhere.narrow(&allowed).selectors.is_empty());
        let dhcp = TrafficSelector::any_v4().with_protocol(17, 67, 67).unwrap();
        let http = TrafficSelector::any_v4().with_protocol(6, 80, 80).unwrap();
        assert_eq!(dhcp.intersect(&http), None);
        assert_eq!(dhcp.intersect(&prefix("10.0.0.1", 32)).unwrap().to_string(), "10.0.0.1/32[17/67]");
    }

    #[test]
    fn opaque_ports_are_part_of_any_and_of_nothing_else() {
        let opaque = TrafficSelector::any_v4().with_protocol(6, u16::MAX, 0).unwrap();
        let some = TrafficSelector::any_v4().with_protocol(6, 1, u16::MAX).unwrap();
        assert!(TrafficSelector::any_v4().covers(&opaque) && opaque.covers(&opaque));
        assert_eq!(opaque.intersect(&some), None);
    }

    #[test]
    fn what_is_no_range_is_no_selector() {
        let new = |start: &str, end: &str| {
            TrafficSelector::new(0, 0, 1, start.parse().unwrap(), end.parse().unwrap())
        };
        assert_eq!(new("10.0.0.2", "10.0.0.1"), None);
        assert_eq!(new("10.0.0.1", "::1"), None);
        assert_eq!(TrafficSelector::any_v4().with_protocol(6, 2, 1), None);
    }

    #[test]
    fn people_see_prefixes_or_ranges_with_ports() {
        assert_eq!(prefix("10.0.0.0", 8).to_string(), "10.0.0.0/8");
        assert_eq!(range("10.0.0.1", "10.0.0.2").to_string(), "10.0.0.1-10.0.0.2");
        let any_tcp = TrafficSelector::any_v6().with_protocol(6, 0, u16::MAX).unwrap();
        assert_eq!(any_tcp.to_string(), "::/0[6/any]");
    }
}
