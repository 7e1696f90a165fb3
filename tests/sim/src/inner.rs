//! Inner packets on their way through the simulated network: sealed with the CHILD_SA's own keys, behind a mark that tells them from
//! IKE messages. Sequence numbers are not looked at here.

use ropewalk_esp::{EspSuite, InboundSa, NEXT_HEADER_IPV4, OutboundSa};
use ropewalk_ike::exchange::child::ChildSa;

const MARK: [u8; 4] = *b"ESP:";

fn suite(child: &ChildSa) -> Option<EspSuite> {
    EspSuite::from_iana(child.suite.encr, child.suite.key_bits.unwrap_or(0), child.suite.integ).ok()
}

/// The ESP in a datagram, if it is that.
pub(crate) fn esp(datagram: &[u8]) -> Option<&[u8]> {
    datagram.strip_prefix(&MARK)
}

/// A datagram with this inner packet.
pub(crate) fn seal(child: &ChildSa, packet: &[u8]) -> Option<Vec<u8>> {
    let (suite, keys) = (suite(child)?, &child.keys_out);
    let sa = OutboundSa::new(child.spi_out, suite, &keys.encr, &keys.integ, child.suite.esn).ok()?;
    let mut sealed = vec![0; suite.sealed_len(packet.len())];
    sa.seal(1, &[packet], NEXT_HEADER_IPV4, &mut sealed).ok()?;
    Some([&MARK[..], &sealed].concat())
}

/// The inner packet, when it is this CHILD_SA's.
pub(crate) fn open(child: &ChildSa, esp: &[u8]) -> Option<Vec<u8>> {
    let keys = &child.keys_in;
    let mut sa =
        InboundSa::new(child.spi_in, suite(child)?, &keys.encr, &keys.integ, child.suite.esn).ok()?;
    let mut packet = esp.to_vec();
    let opened = sa.open(&mut packet).ok()?;
    packet.get(opened.range).map(<[u8]>::to_vec)
}
