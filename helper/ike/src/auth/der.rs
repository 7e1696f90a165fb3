//! A reader for the few DER structures that authentication must take apart itself (X.690).
//!
//! It hands out one element after the other and never recurses: how deep a peer nests its ASN.1 costs nothing.

/// Tag of an INTEGER.
pub(super) const INTEGER: u8 = 0x02;
/// Tag of an OCTET STRING.
pub(super) const OCTET_STRING: u8 = 0x04;
/// Tag of a NULL.
pub(super) const NULL: u8 = 0x05;
/// Tag of an OBJECT IDENTIFIER.
pub(super) const OID: u8 = 0x06;
/// Tag of a SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;

/// Tag of the constructed context-specific element `[number]`.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// Reads DER elements from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next element's tag and content; `None` when it is cut short or not DER (indefinite or padded length).
    pub(super) fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        if tag & 0x1f == 0x1f {
            return None; // tags of more than one octet do not occur in these structures
        }
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 3 {
                return None;
            }
            let (octets, rest) = rest.split_at_checked(count)?;
            let len = octets.iter().fold(0_usize, |len, octet| (len << 8) | usize::from(*octet));
            let shortest = len >= 0x80 && octets.first() != Some(&0);
            if !shortest {
                return None;
            }
            (len, rest)
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must have `tag`.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (got, content) = self.element()?;
        (got == tag).then_some(content)
    }

    /// The content of the next element if it has `tag`; otherwise nothing is consumed.
    pub(super) fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() == Some(&tag) { self.expect(tag) } else { None }
    }

    /// A reader over the content of the next element, which must have `tag`.
    pub(super) fn nested(&mut self, tag: u8) -> Option<Self> {
        self.expect(tag).map(Self)
    }
}

/// The content of the one element that `octets` must consist of.
pub(super) fn only(octets: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(octets);
    let content = reader.expect(tag)?;
    reader.is_empty().then_some(content)
}

/// An element from its tag and content.
pub(super) fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let len = content.len();
    if len < 0x80 {
        out.push(len.to_le_bytes()[0]);
    } else {
        let octets = len.to_be_bytes();
        let significant: Vec<u8> = octets.iter().copied().skip_while(|octet| *octet == 0).collect();
        out.push(0x80 | significant.len().to_le_bytes()[0]);
        out.extend_from_slice(&significant);
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn indefinite_padded_and_oversized_lengths_are_refused() {
        for bad in [
            &[0x30, 0x80, 0x00, 0x00][..],
            &[0x30, 0x81, 0x01, 0x00],
            &[0x30, 0x82, 0x00, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x05, 0x00],
            &[0x1f, 0x81, 0x00],
            &[0x30],
            &[],
        ] {
            assert_eq!(Reader::new(bad).element(), None, "{bad:02x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(tag in 0_u8..0x1f, content in proptest::collection::vec(any::<u8>(), 0..400)) {
            let encoded = encode(tag, &content);
            prop_assert_eq!(only(&encoded, tag), Some(&content[..]));
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&octets);
            while reader.element().is_some() {}
        }
    }
}
