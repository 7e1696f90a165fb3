//! What a datagram on UDP 4500 is (RFC 3948 2): ESP, IKE behind the non-ESP marker, or a keepalive.

/// Four zero octets before an IKE message where ESP may also arrive: no ESP packet begins so, for SPI 0 is never used.
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The one octet of a NAT keepalive. Never a sign of life (RFC 3948 4).
pub const KEEPALIVE: u8 = 0xff;

/// One datagram, told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulated {
    /// An IKE message starts after the marker, at this offset.
    Ike {
        /// Octets before the message.
        offset: usize,
    },
    /// ESP with this SPI, never 0.
    Esp {
        /// The security parameter index.
        spi: u32,
    },
    /// A NAT keepalive.
    Keepalive,
    /// Too short to be anything.
    Malformed,
}

/// Tells what a datagram with NAT-traversal framing is. Judges the first octets only.
#[must_use]
pub fn classify(datagram: &[u8]) -> Encapsulated {
    if datagram == [KEEPALIVE] {
        return Encapsulated::Keepalive;
    }
    let Some((first, rest)) = datagram.split_first_chunk::<4>() else {
        return Encapsulated::Malformed;
    };
    match (u32::from_be_bytes(*first), rest.len()) {
        (0, 0) => Encapsulated::Malformed,
        (0, _) => Encapsulated::Ike { offset: NON_ESP_MARKER.len() },
        (_, 0..4) => Encapsulated::Malformed,
        (spi, _) => Encapsulated::Esp { spi },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_told_apart_by_their_first_octets() {
        assert_eq!(classify(&[0xff]), Encapsulated::Keepalive);
        assert_eq!(classify(&[0, 0, 0, 0, 9]), Encapsulated::Ike { offset: 4 });
        assert_eq!(classify(&[0, 0, 0, 1, 0, 0, 0, 1]), Encapsulated::Esp { spi: 1 });
        for malformed in
            [&[][..], &[0], &[0xfe], &[0xff, 0xff], &[0; 4], &[1, 2, 3, 4], &[1, 2, 3, 4, 5, 6, 7]]
        {
            assert_eq!(classify(malformed), Encapsulated::Malformed, "{malformed:?}");
        }
    }
}
