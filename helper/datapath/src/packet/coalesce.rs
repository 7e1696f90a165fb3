//! The reverse of segmentation: packets of one flow that arrived in order become one super-packet again.
//!
//! Nothing is moved. An [`Output`] is a chain of slices of the receive buffer: the first packet with its headers, then the
//! payloads of those that follow, which one gathering write hands to the device. What makes two packets one is what the
//! kernel's own receive offload asks for: the same addresses, ports, TOS, TTL and options, the same acknowledgement, the
//! next sequence number, no flag but ACK, and PSH on the last; every checksum verified, for the kernel will not do it
//! again.
//!
//! Order within a flow is kept: a packet joins only the latest output of its flow, or starts a new one behind it.

use std::ops::Range;

use super::checksum::Sum;
use super::ip::{Fragment, Ip, TCP, UDP, address_octets, set_total_len};
use super::vnet::{Gso, VNET_LEN, Vnet};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;

/// How many outputs back a packet's flow is looked for: more flows than this in one batch are seldom worth it.
const LOOK_BACK: usize = 16;
/// Slices in one output: a 64 KiB super-packet of 536-octet segments has 122.
pub(crate) const MAX_SLICES: usize = 128;
/// The longest IP packet.
const MAX_LEN: usize = 65535;

const END: usize = usize::MAX;

/// Which packets may be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Joining {
    pub(crate) tcp: bool,
    pub(crate) udp: bool,
}

/// A slice of the receive buffer, and the one after it.
#[derive(Debug, Clone, Copy)]
struct Slice {
    start: usize,
    end: usize,
    next: usize,
}

/// One write to the device.
#[derive(Debug, Clone, Copy)]
struct Output {
    flow: Flow,
    first: usize,
    last: usize,
    slices: usize,
    /// All octets, headers once.
    len: usize,
    /// What may still join; `None`: nothing.
    open: Option<Open>,
    shape: Option<Shape>,
    /// Flags that joined segments add to the first one's.
    flags: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    hash: u64,
    protocol: u8,
}

/// How the segments of an output look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    kind: Gso,
    l4: usize,
    header_len: usize,
    size: usize,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    next_seq: u32,
}

/// The outputs of one receive batch. All memory is taken once.
#[derive(Debug)]
pub(crate) struct Coalescer {
    slices: Vec<Slice>,
    outputs: Vec<Output>,
    /// Outputs before this one are not joined any more: a fragment, whose flow is not known, came in between.
    barrier: usize,
}

impl Coalescer {
    /// Memory for batches of up to `packets` packets.
    pub(crate) fn with_capacity(packets: usize) -> Self {
        Self { slices: Vec::with_capacity(packets), outputs: Vec::with_capacity(packets), barrier: 0 }
    }

    /// Forgets the batch.
    pub(crate) fn clear(&mut self) {
        self.slices.clear();
        self.outputs.clear();
        self.barrier = 0;
    }

    /// Whether another packet fits without taking memory.
    pub(crate) fn has_room(&self) -> bool {
        self.slices.len() < self.slices.capacity() && self.outputs.len() < self.outputs.capacity()
    }

    pub(crate) fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Adds the packet at `range` of `buffer`, whose headers are `ip`.
    pub(crate) fn push(&mut self, buffer: &[u8], range: Range<usize>, ip: &Ip, joining: Joining) {
        let Some(packet) = buffer.get(range.clone()) else { return };
        if ip.fragment != Fragment::Whole {
            self.start(Flow { hash: 0, protocol: 0 }, &range, None, None);
            self.barrier = self.outputs.len();
            return;
        }
        let flow = flow(packet, ip);
        let Some(candidate) = Candidate::new(packet, ip, joining) else {
            self.start(flow, &range, None, None);
            return;
        };
        if self.join(buffer, flow, packet, &range, &candidate) {
            return;
        }
        let open = candidate.leaves_open.then_some(Open { next_seq: candidate.next_seq() });
        self.start(flow, &range, Some(candidate.shape), open);
    }

    fn start(&mut self, flow: Flow, range: &Range<usize>, shape: Option<Shape>, open: Option<Open>) {
        let index = self.slices.len();
        self.slices.push(Slice { start: range.start, end: range.end, next: END });
        self.outputs.push(Output {
            flow,
            first: index,
            last: index,
            slices: 1,
            len: range.len(),
            open,
            shape,
            flags: 0,
        });
    }

    fn join(
        &mut self,
        buffer: &[u8],
        flow: Flow,
        packet: &[u8],
        range: &Range<usize>,
        candidate: &Candidate,
    ) -> bool {
        let Some(recent) = self.outputs.get_mut(self.barrier..) else { return false };
        let Some(output) = recent.iter_mut().rev().take(LOOK_BACK).find(|output| output.flow == flow) else {
            return false;
        };
        let (Some(open), Some(shape)) = (output.open, output.shape) else { return false };
        let Some(head) = self.slices.get(output.first).and_then(|slice| buffer.get(slice.start..slice.end))
        else {
            return false;
        };
        let payload = candidate.shape.size;
        let fits = shape.kind == candidate.shape.kind
            && shape.header_len == candidate.shape.header_len
            && payload <= shape.size
            && output.len + payload <= MAX_LEN
            && output.slices < MAX_SLICES
            && (shape.kind == Gso::Udp || open.next_seq == candidate.seq)
            && same_headers(head, packet, &shape);
        if !fits {
            // Later packets of this flow must not overtake this one.
            output.open = None;
            return false;
        }
        let index = self.slices.len();
        if let Some(last) = self.slices.get_mut(output.last) {
            last.next = index;
        }
        output.last = index;
        output.slices += 1;
        output.len += payload;
        output.flags |= candidate.flags & (PSH | FIN);
        output.open = (candidate.leaves_open && payload == shape.size)
            .then_some(Open { next_seq: candidate.next_seq() });
        self.slices.push(Slice { start: range.start + shape.header_len, end: range.end, next: END });
        true
    }

    /// How many packets output `index` stands for, and its octets as so many packets.
    pub(crate) fn weight(&self, index: usize) -> (u64, u64) {
        let Some(output) = self.outputs.get(index) else { return (0, 0) };
        let extra = output.shape.map_or(0, |shape| (output.slices - 1) * shape.header_len);
        (output.slices as u64, (output.len + extra) as u64)
    }

    /// Makes output `index` ready to be written: the headers of a super-packet become those of the whole. Returns its
    /// vnet header.
    pub(crate) fn prepare(&self, buffer: &mut [u8], index: usize) -> [u8; VNET_LEN] {
        let plain = [0; VNET_LEN];
        let Some(output) = self.outputs.get(index) else { return plain };
        let (Some(shape), true) = (output.shape, output.slices > 1) else { return plain };
        let Some(packet) =
            self.slices.get(output.first).and_then(|slice| buffer.get_mut(slice.start..slice.end))
        else {
            return plain;
        };
        patch_head(packet, &shape, output.len, output.flags)
    }

    /// The slices of output `index`, in order.
    pub(crate) fn slices(&self, index: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut at = self.outputs.get(index).map_or(END, |output| output.first);
        std::iter::from_fn(move || {
            let slice = self.slices.get(at)?;
            at = slice.next;
            Some(slice.start..slice.end)
        })
    }

    /// Whether output `index` is made of UDP datagrams.
    pub(crate) fn is_udp(&self, index: usize) -> bool {
        let shape = self.outputs.get(index).and_then(|output| output.shape);
        shape.is_some_and(|shape| shape.kind == Gso::Udp)
    }

    /// Takes output `index` apart again, for a device that refuses super-packets: gives the first packet its own headers
    /// back (the others kept theirs, in front of their payload) and calls `each` with every packet.
    pub(crate) fn take_apart(&self, buffer: &mut [u8], index: usize, mut each: impl FnMut(&[u8])) {
        let Some(output) = self.outputs.get(index) else { return };
        let Some(shape) = output.shape else { return };
        for (number, slice) in self.slices(index).enumerate() {
            let headers = if number == 0 { 0 } else { shape.header_len };
            let Some(packet) = buffer.get_mut(slice.start - headers..slice.end) else { continue };
            if number == 0 {
                unpatch_head(packet, &shape, output.flags);
            }
            each(packet);
        }
    }
}

/// A packet that may join others.
struct Candidate {
    shape: Shape,
    seq: u32,
    flags: u8,
    leaves_open: bool,
}

impl Candidate {
    fn new(packet: &[u8], ip: &Ip, joining: Joining) -> Option<Self> {
        if !ip.plain || packet.len() != ip.total_len {
            return None;
        }
        let l4 = packet.get(ip.l4..)?;
        let (kind, l4_header, seq, flags) = match ip.protocol {
            TCP if joining.tcp => {
                let header: &[u8; 20] = l4.first_chunk()?;
                let [_, _, _, _, s0, s1, s2, s3, _, _, _, _, offset, flags, ..] = *header;
                if flags & !(ACK | PSH | FIN | ECE) != 0 || flags & ACK == 0 {
                    return None;
                }
                let header_len = usize::from(offset >> 4) * 4;
                if header_len < 20 {
                    return None;
                }
                (Gso::Tcp, header_len, u32::from_be_bytes([s0, s1, s2, s3]), flags)
            }
            UDP if joining.udp => {
                let [_, _, _, _, len0, len1, sum0, sum1] = *l4.first_chunk::<8>()?;
                if (sum0, sum1) == (0, 0) || usize::from(u16::from_be_bytes([len0, len1])) != l4.len() {
                    return None;
                }
                (Gso::Udp, 8, 0, 0)
            }
            _ => return None,
        };
        let size = l4.len().checked_sub(l4_header).filter(|size| *size > 0)?;
        let sum = Sum::default().pseudo_header(address_octets(packet), ip.protocol, l4.len()).bytes(l4);
        if !sum.is_intact() {
            return None;
        }
        let shape = Shape { kind, l4: ip.l4, header_len: ip.l4 + l4_header, size };
        Some(Self { shape, seq, flags, leaves_open: flags & (PSH | FIN) == 0 })
    }

    fn next_seq(&self) -> u32 {
        self.seq.wrapping_add(self.shape.size as u32)
    }
}

/// Addresses, protocol and ports, mixed. Equal flows have equal values; the headers are compared before packets join.
fn flow(packet: &[u8], ip: &Ip) -> Flow {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |bytes: &[u8]| {
        for word in bytes.chunks(4) {
            let word = word.iter().fold(0u64, |all, octet| (all << 8) | u64::from(*octet));
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
    };
    mix(address_octets(packet));
    if ip.ports(packet).is_some() {
        mix(packet.get(ip.l4..ip.l4 + 4).unwrap_or_default());
    }
    Flow { hash, protocol: ip.protocol }
}

/// Whether everything that the segments of a super-packet have in common is the same.
fn same_headers(a: &[u8], b: &[u8], shape: &Shape) -> bool {
    let same = |range: Range<usize>| match (a.get(range.clone()), b.get(range)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    };
    let network = match a.first().map(|first| first >> 4) {
        // Not: length, identification, checksum.
        Some(4) => same(0..2) && same(6..10) && same(12..20),
        // Not: length.
        _ => same(0..4) && same(6..40),
    };
    let l4 = shape.l4;
    let transport = match shape.kind {
        // Ports, acknowledgement and header length, options. ECE must not get lost either.
        Gso::Tcp => {
            let ece = |packet: &[u8]| packet.get(l4 + 13).map(|flags| flags & ECE);
            same(l4..l4 + 4) && same(l4 + 8..l4 + 13) && ece(a) == ece(b) && same(l4 + 20..shape.header_len)
        }
        Gso::Udp => same(l4..l4 + 4),
    };
    network && transport
}

/// Gives the first packet the headers of the whole super-packet.
fn patch_head(packet: &mut [u8], shape: &Shape, len: usize, flags: u8) -> [u8; VNET_LEN] {
    let l4 = shape.l4;
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let _ = set_total_len(packet, len);
    let l4_len = len - l4;
    let protocol = match shape.kind {
        Gso::Tcp => TCP,
        Gso::Udp => UDP,
    };
    let partial = Sum::default().pseudo_header(address_octets(packet), protocol, l4_len).partial();
    let checksum_at = match shape.kind {
        Gso::Tcp => {
            if let Some(octet) = packet.get_mut(l4 + 13) {
                *octet |= flags;
            }
            l4 + 16
        }
        Gso::Udp => {
            if let Some(field) = packet.get_mut(l4 + 4..l4 + 6) {
                field.copy_from_slice(&(l4_len as u16).to_be_bytes());
            }
            l4 + 6
        }
    };
    if let Some(field) = packet.get_mut(checksum_at..checksum_at + 2) {
        field.copy_from_slice(&partial);
    }
    Vnet::super_packet(shape.kind, is_v6, shape.header_len, shape.size, l4)
}

/// Gives the first packet its own headers back. It had none of the `flags` that others added, or it would have been
/// the last.
fn unpatch_head(packet: &mut [u8], shape: &Shape, flags: u8) {
    let l4 = shape.l4;
    let len = packet.len();
    let _ = set_total_len(packet, len);
    let (protocol, checksum_at) = match shape.kind {
        Gso::Tcp => {
            if let Some(octet) = packet.get_mut(l4 + 13) {
                *octet &= !flags;
            }
            (TCP, l4 + 16)
        }
        Gso::Udp => {
            if let Some(field) = packet.get_mut(l4 + 4..l4 + 6) {
                field.copy_from_slice(&((len - l4) as u16).to_be_bytes());
            }
            (UDP, l4 + 6)
        }
    };
    if let Some(field) = packet.get_mut(checksum_at..checksum_at + 2) {
        field.fill(0);
    }
    let sum = Sum::default().pseudo_header(address_octets(packet), protocol, len - l4);
    let mut checksum = sum.bytes(packet.get(l4..).unwrap_or_default()).finish();
    if shape.kind == Gso::Udp && checksum == [0, 0] {
        checksum = [0xff, 0xff];
    }
    if let Some(field) = packet.get_mut(checksum_at..checksum_at + 2) {
        field.copy_from_slice(&checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::segment::Segmentation;
    use crate::packet::testing::{is_intact, tcp, tcp_with_options, udp};
    use proptest::prelude::*;

    const BOTH: Joining = Joining { tcp: true, udp: true };
    const A: &str = "10.0.0.1:1000";
    const B: &str = "10.0.0.2:80";

    /// Lays packets into a buffer with gaps, as ESP leaves them, and pushes them.
    fn gather(packets: &[Vec<u8>], joining: Joining) -> (Coalescer, Vec<u8>) {
        let mut buffer = Vec::new();
        let mut ranges = Vec::new();
        for packet in packets {
            buffer.extend([0xee; 24]);
            ranges.push(buffer.len()..buffer.len() + packet.len());
            buffer.extend(packet);
        }
        let mut coalescer = Coalescer::with_capacity(packets.len());
        for range in ranges {
            let ip = Ip::parse(&buffer[range.clone()]).unwrap();
            coalescer.push(&buffer, range, &ip, joining);
        }
        (coalescer, buffer)
    }

    /// What the device would be given, cut again as the kernel would.
    fn written(packets: &[Vec<u8>], joining: Joining) -> Vec<Vec<Vec<u8>>> {
        let (coalescer, mut buffer) = gather(packets, joining);
        (0..coalescer.len())
            .map(|index| {
                let vnet = Vnet::parse(&coalescer.prepare(&mut buffer, index)).unwrap();
                let whole: Vec<u8> =
                    coalescer.slices(index).flat_map(|range| buffer[range].to_vec()).collect();
                let Some((kind, size)) = vnet.gso else { return vec![whole] };
                let ip = Ip::parse(&whole).unwrap();
                assert_eq!(ip.total_len, whole.len());
                let segmentation = Segmentation::new(&whole, &ip, kind, size).unwrap();
                (0..segmentation.count())
                    .map(|index| {
                        let mut out = vec![0; 2000];
                        let len = segmentation.write(&whole, index, &mut out).unwrap();
                        out.truncate(len);
                        out
                    })
                    .collect()
            })
            .collect()
    }

    fn counts(packets: &[Vec<u8>]) -> Vec<usize> {
        written(packets, BOTH).iter().map(Vec::len).collect()
    }

    /// Clears what differs for good reason: IPv4 identification and with it the header checksum.
    fn without_id(packet: &[u8]) -> Vec<u8> {
        let mut packet = packet.to_vec();
        if packet[0] >> 4 == 4 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        packet
    }

    #[test]
    fn segments_in_order_become_one_and_come_apart_as_they_were() {
        for (a, b) in [(A, B), ("[fd00::1]:1000", "[fd00::2]:80")] {
            let mut packets: Vec<_> = (0..10).map(|i| tcp(a, b, i * 100, ACK, &[i as u8; 100])).collect();
            packets.push(tcp(a, b, 1000, ACK | PSH, &[9; 30]));
            let outputs = written(&packets, BOTH);
            assert_eq!(outputs.len(), 1);
            let apart: Vec<_> = outputs[0].iter().map(|p| without_id(p)).collect();
            assert_eq!(apart, packets.iter().map(|p| without_id(p)).collect::<Vec<_>>());
            assert!(outputs[0].iter().all(|p| is_intact(p)));
        }
    }

    #[test]
    fn udp_datagrams_of_one_size_become_one() {
        for (a, b) in [(A, B), ("[fd00::1]:1000", "[fd00::2]:80")] {
            let mut packets: Vec<_> = (0..5).map(|i| udp(a, b, &[i; 200])).collect();
            packets.push(udp(a, b, &[7; 50]));
            packets.push(udp(a, b, &[8; 200]));
            let outputs = written(&packets, BOTH);
            assert_eq!(outputs.iter().map(Vec::len).collect::<Vec<_>>(), [6, 1]);
            let apart: Vec<_> = outputs.concat().iter().map(|p| without_id(p)).collect();
            assert_eq!(apart, packets.iter().map(|p| without_id(p)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_the_device_does_not_take_is_not_joined() {
        let packets: Vec<_> = (0..3).map(|i| tcp(A, B, i * 100, ACK, &[0; 100])).collect();
        assert_eq!(written(&packets, Joining { tcp: false, udp: false }).len(), 3);
        assert_eq!(written(&packets, Joining { tcp: false, udp: true }).len(), 3);
    }

    #[test]
    fn gaps_flags_options_and_other_headers_part_segments() {
        let first = tcp(A, B, 0, ACK, &[0; 100]);
        let part = |second: Vec<u8>| assert_eq!(counts(&[first.clone(), second]), [1, 1]);
        part(tcp(A, B, 101, ACK, &[0; 100]));
        part(tcp(A, B, 0, ACK, &[0; 100]));
        part(tcp(A, B, 100, ACK, &[0; 101]));
        part(tcp(A, B, 100, ACK | 0x02, &[0; 100]));
        part(tcp(A, B, 100, ACK | ECE, &[0; 100]));
        part(tcp(A, B, 100, ACK, &[]));
        part(tcp_with_options(A, B, 100, ACK, &[1, 1, 1, 1], &[0; 100]));
        part(tcp(A, "10.0.0.2:81", 100, ACK, &[0; 100]));
        let mut other_tos = tcp(A, B, 100, ACK, &[0; 100]);
        assert!(super::super::ecn::set_tos(&mut other_tos, 3));
        part(other_tos);
        let mut wrong_checksum = tcp(A, B, 100, ACK, &[0; 100]);
        *wrong_checksum.last_mut().unwrap() ^= 1;
        part(wrong_checksum);
        assert_eq!(counts(&[first.clone(), tcp(A, B, 100, ACK, &[0; 100])]), [2]);
        assert_eq!(counts(&[tcp(A, B, 0, ACK | PSH, &[0; 100]), tcp(A, B, 100, ACK, &[0; 100])]), [1, 1]);
    }

    #[test]
    fn flows_are_told_apart_and_each_stays_in_order() {
        let packets: Vec<_> = (0..40u32)
            .map(|i| tcp(&format!("10.0.0.1:{}", 1000 + i % 4), B, i / 4 * 100, ACK, &[i as u8; 100]))
            .collect();
        assert_eq!(counts(&packets), [10, 10, 10, 10]);
    }

    #[test]
    fn nothing_is_moved_across_a_fragment() {
        let mut fragment = udp(A, B, &[0; 100]);
        fragment[7] = 9;
        let packets = [tcp(A, B, 0, ACK, &[0; 100]), fragment, tcp(A, B, 100, ACK, &[0; 100])];
        assert_eq!(counts(&packets), [1, 1, 1]);
    }

    #[test]
    fn a_super_packet_never_exceeds_an_ip_packet() {
        let packets: Vec<_> = (0..60).map(|i| tcp(A, B, i * 1400, ACK, &[0; 1400])).collect();
        assert_eq!(counts(&packets), [46, 14]);
    }

    #[test]
    fn a_refused_super_packet_comes_apart_into_the_very_packets() {
        for (a, b) in [(A, B), ("[fd00::1]:1000", "[fd00::2]:80")] {
            let tcp: Vec<_> = (0..5u8)
                .map(|i| tcp(a, b, u32::from(i) * 100, if i == 4 { ACK | PSH } else { ACK }, &[i; 100]))
                .collect();
            let udp: Vec<_> = (0..5).map(|i| udp(a, b, &[i; 100])).collect();
            for packets in [tcp, udp] {
                let (coalescer, mut buffer) = gather(&packets, BOTH);
                assert_eq!(coalescer.len(), 1);
                coalescer.prepare(&mut buffer, 0);
                let mut apart = Vec::new();
                coalescer.take_apart(&mut buffer, 0, |packet| apart.push(packet.to_vec()));
                assert_eq!(apart, packets);
            }
        }
    }

    proptest! {
        #[test]
        fn every_flow_keeps_its_packets_and_their_order(
            choices in proptest::collection::vec((0u32..3, 0u32..4, 1usize..300, any::<bool>()), 1..80),
        ) {
            let mut seqs = [0u32; 3];
            let packets: Vec<_> = choices.iter().map(|(flow, jump, len, push)| {
                let seq = &mut seqs[*flow as usize];
                if *jump == 0 { *seq += 7; }
                let flags = if *push { ACK | PSH } else { ACK };
                let len = if *jump == 1 { *len } else { 200 };
                let packet = tcp(&format!("10.0.0.1:{}", 1000 + flow), B, *seq, flags, &vec![*flow as u8; len]);
                *seq += len as u32;
                packet
            }).collect();
            let out = written(&packets, BOTH).concat();
            for flow in 0..3u16 {
                let of = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
                    packets.iter().filter(|p| p[20..22] == (1000 + flow).to_be_bytes()).map(|p| without_id(p)).collect()
                };
                prop_assert_eq!(of(&out), of(&packets));
            }
            prop_assert_eq!(out.len(), packets.len());
        }
    }
}
