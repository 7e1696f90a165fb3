//! N(MPSA_PUT), section 3.2.2: a proposal-like structure whose transforms carry the SA itself.
//!
//! ```text
//! protocol ESP, SPI | proposal: ENCR, PRF, INTEG, NONCE (241), SKD (242), LIFE (243), ROLL1 (244), ROLL2 (245)
//! ```
//!
//! The draft's tables give ROLL1 and ROLL2 attributes of their own (16387, 16388), its example writes the one of LIFE
//! (16386) in both. The tables' are sent, either is taken.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::WireError;
use crate::wire::reader::{Reader, len8, len16};
use crate::wire::{Notify, NotifyType, Protocol};

/// The notify's number.
pub const MPSA_PUT: u16 = 40960;

const ENCR: u8 = 1;
const PRF: u8 = 2;
const INTEG: u8 = 3;
const NONCE: u8 = 241;
const SKD: u8 = 242;
const LIFE: u8 = 243;
const ROLL1: u8 = 244;
const ROLL2: u8 = 245;
/// The transform ID of the draft's own transforms.
const VALUE: u16 = 1;

const KEY_LENGTH: u16 = 14;
const NONCE_VALUE: u16 = 16384;
const SKD_VALUE: u16 = 16385;
const LIFE_VALUE: u16 = 16386;
const ROLL1_VALUE: u16 = 16387;
const ROLL2_VALUE: u16 = 16388;
/// Set in an attribute's type when its value stands in the place of its length.
const ATTRIBUTE_TV: u16 = 0x8000;

const PROPOSAL_HEADER: usize = 8;
const TRANSFORM_HEADER: usize = 8;
const ATTRIBUTE_HEADER: usize = 4;
const MORE_TRANSFORMS: u8 = 3;
/// SPIs below are reserved (RFC 4303 section 2.1).
const FIRST_SPI: u32 = 256;

/// What a gateway puts into the notify. `Debug` shows neither nonce nor SK_d.
#[derive(Clone, PartialEq, Eq)]
pub struct MpsaPut {
    /// The SPI, the same for both directions and for every member.
    pub spi: u32,
    /// The encryption algorithm's number.
    pub encr: u16,
    /// Its key length in bits; 0 without that attribute.
    pub key_bits: u16,
    /// The pseudorandom function's number.
    pub prf: u16,
    /// The integrity algorithm's number; 0 when there is none.
    pub integ: u16,
    /// 16 to 256 octets.
    pub nonce: Vec<u8>,
    /// As long as the function's key.
    pub sk_d: Zeroizing<Vec<u8>>,
    /// How long the SA is good from now on.
    pub lifetime: Duration,
    /// After this, packets are sent with it.
    pub rollover1: Duration,
    /// After this, packets of its predecessor are refused.
    pub rollover2: Duration,
}

impl std::fmt::Debug for MpsaPut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MpsaPut").field("spi", &self.spi).field("encr", &self.encr).finish_non_exhaustive()
    }
}

/// What is wrong with the notify: it is answered with INVALID_SYNTAX and installs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// It ends too early or a length does not fit.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It is not about ESP.
    #[error("MPSA_PUT is about protocol {found}, not ESP")]
    Protocol {
        /// What it is about.
        found: u8,
    },
    /// The two SPIs are to be the same one of four octets, outside the reserved range.
    #[error("MPSA_PUT without one usable SPI")]
    Spi,
    /// More than one proposal.
    #[error("MPSA_PUT with several proposals")]
    SeveralProposals,
    /// A transform that the draft does not have: ignoring it would be guessing.
    #[error("MPSA_PUT with the unknown transform type {ty}")]
    UnknownTransform {
        /// Its type.
        ty: u8,
    },
    /// A transform stands there twice.
    #[error("MPSA_PUT with two transforms of type {ty}")]
    Repeated {
        /// Its type.
        ty: u8,
    },
    /// A transform is missing.
    #[error("MPSA_PUT without a transform of type {ty}")]
    Missing {
        /// Its type.
        ty: u8,
    },
    /// An attribute that does not belong to its transform, or whose value has a wrong length.
    #[error("MPSA_PUT with a wrong attribute {attribute} in transform type {ty}")]
    Attribute {
        /// The transform's type.
        ty: u8,
        /// The attribute's type.
        attribute: u16,
    },
}

/// A transform's ID and the one attribute that each of them has at most.
struct Transform<'a> {
    id: u16,
    attribute: Option<(u16, &'a [u8])>,
}

impl MpsaPut {
    /// Reads the notify.
    ///
    /// # Errors
    /// [`PutError`].
    pub fn parse(notify: &Notify) -> Result<Self, PutError> {
        if notify.protocol != u8::from(Protocol::Esp) {
            return Err(PutError::Protocol { found: notify.protocol });
        }
        let mut reader = Reader::new(&notify.data, "MPSA_PUT");
        let (last, _reserved, length) = (reader.u8()?, reader.u8()?, reader.u16()?);
        if last != 0 || usize::from(length) != notify.data.len() {
            return Err(PutError::SeveralProposals);
        }
        let (_number, protocol, spi_size, count) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
        if protocol != u8::from(Protocol::Esp) {
            return Err(PutError::Protocol { found: protocol });
        }
        let spi = reader.take(usize::from(spi_size))?;
        let number = <[u8; 4]>::try_from(spi).map(u32::from_be_bytes).map_err(|_| PutError::Spi)?;
        if notify.spi != spi || number < FIRST_SPI {
            return Err(PutError::Spi);
        }
        let mut found = Found::default();
        for _ in 0..count {
            let (ty, transform) = read_transform(&mut reader)?;
            found.put(ty, transform)?;
        }
        if !reader.rest().is_empty() {
            return Err(WireError::BadLength { what: "MPSA_PUT", length: notify.data.len() }.into());
        }
        found.finish(number)
    }

    /// The notify, as the draft's tables say.
    #[must_use]
    pub fn notify(&self) -> Notify {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).to_be_bytes();
        let mut transforms: Vec<Vec<u8>> = Vec::new();
        let key_bits = (self.key_bits != 0).then_some([ATTRIBUTE_TV | KEY_LENGTH, self.key_bits]);
        let key_length = key_bits.map(|pair| pair.map(u16::to_be_bytes).concat()).unwrap_or_default();
        transforms.push(transform(ENCR, self.encr, &key_length));
        transforms.push(transform(PRF, self.prf, &[]));
        if self.integ != 0 {
            transforms.push(transform(INTEG, self.integ, &[]));
        }
        transforms.push(transform(NONCE, VALUE, &tlv(NONCE_VALUE, &self.nonce)));
        transforms.push(transform(SKD, VALUE, &tlv(SKD_VALUE, &self.sk_d)));
        transforms.push(transform(LIFE, VALUE, &tlv(LIFE_VALUE, &seconds(self.lifetime))));
        transforms.push(transform(ROLL1, VALUE, &tlv(ROLL1_VALUE, &seconds(self.rollover1))));
        transforms.push(transform(ROLL2, VALUE, &tlv(ROLL2_VALUE, &seconds(self.rollover2))));
        let count = transforms.len();
        if let Some(first) = transforms.last_mut().and_then(|last| last.first_mut()) {
            *first = 0;
        }
        let spi = self.spi.to_be_bytes();
        let body = transforms.concat();
        let length = len16(PROPOSAL_HEADER + spi.len() + body.len()).to_be_bytes();
        let esp = u8::from(Protocol::Esp);
        let header = [[0, 0], length, [1, esp], [len8(spi.len()), len8(count)]].concat();
        let data = [header.as_slice(), &spi, &body].concat();
        Notify { protocol: esp, spi: spi.to_vec(), ty: NotifyType::from(MPSA_PUT), data }
    }
}

fn transform(ty: u8, id: u16, attributes: &[u8]) -> Vec<u8> {
    let length = len16(TRANSFORM_HEADER + attributes.len()).to_be_bytes();
    [&[MORE_TRANSFORMS, 0][..], &length, &[ty, 0], &id.to_be_bytes(), attributes].concat()
}

fn tlv(attribute: u16, value: &[u8]) -> Vec<u8> {
    [&attribute.to_be_bytes()[..], &len16(value.len()).to_be_bytes(), value].concat()
}

fn read_transform<'a>(reader: &mut Reader<'a>) -> Result<(u8, Transform<'a>), PutError> {
    let (_last, _reserved, length) = (reader.u8()?, reader.u8()?, reader.u16()?);
    let (ty, _reserved, id) = (reader.u8()?, reader.u8()?, reader.u16()?);
    let bad = WireError::BadLength { what: "MPSA_PUT transform", length: usize::from(length) };
    let rest = usize::from(length).checked_sub(TRANSFORM_HEADER).ok_or(bad)?;
    let mut inside = Reader::new(reader.take(rest)?, "MPSA_PUT attribute");
    let attribute = if rest == 0 { None } else { Some(read_attribute(ty, rest, &mut inside)?) };
    if inside.rest().is_empty() { Ok((ty, Transform { id, attribute })) } else { Err(bad.into()) }
}

fn read_attribute<'a>(ty: u8, rest: usize, inside: &mut Reader<'a>) -> Result<(u16, &'a [u8]), PutError> {
    let attribute = inside.u16()?;
    if attribute & ATTRIBUTE_TV != 0 {
        return Ok((attribute & !ATTRIBUTE_TV, inside.take(2)?));
    }
    let length = usize::from(inside.u16()?);
    if length + ATTRIBUTE_HEADER != rest {
        return Err(PutError::Attribute { ty, attribute });
    }
    Ok((attribute, inside.take(length)?))
}

/// The transforms, as they come.
#[derive(Default)]
struct Found<'a> {
    encr: Option<(u16, u16)>,
    prf: Option<u16>,
    integ: Option<u16>,
    nonce: Option<&'a [u8]>,
    sk_d: Option<&'a [u8]>,
    lifetime: Option<Duration>,
    rollover1: Option<Duration>,
    rollover2: Option<Duration>,
}

impl<'a> Found<'a> {
    fn put(&mut self, ty: u8, transform: Transform<'a>) -> Result<(), PutError> {
        let wrong = |attribute: u16| PutError::Attribute { ty, attribute };
        let bare = |transform: &Transform<'_>| match transform.attribute {
            None => Ok(transform.id),
            Some((attribute, _)) => Err(wrong(attribute)),
        };
        let value = |wanted: &[u16]| match transform.attribute {
            Some((attribute, value)) if wanted.contains(&attribute) && transform.id == VALUE => Ok(value),
            Some((attribute, _)) => Err(wrong(attribute)),
            None => Err(wrong(0)),
        };
        let seconds = |wanted: &[u16]| {
            let value = value(wanted)?;
            let octets =
                <[u8; 4]>::try_from(value).map_err(|_| wrong(wanted.first().copied().unwrap_or(0)))?;
            Ok::<_, PutError>(Duration::from_secs(u32::from_be_bytes(octets).into()))
        };
        match ty {
            ENCR => {
                let bits = match transform.attribute {
                    None => 0,
                    Some((KEY_LENGTH, value)) => {
                        <[u8; 2]>::try_from(value).map(u16::from_be_bytes).map_err(|_| wrong(KEY_LENGTH))?
                    }
                    Some((attribute, _)) => return Err(wrong(attribute)),
                };
                once(&mut self.encr, ty, (transform.id, bits))
            }
            PRF => once(&mut self.prf, ty, bare(&transform)?),
            INTEG => once(&mut self.integ, ty, bare(&transform)?),
            NONCE => {
                let nonce = value(&[NONCE_VALUE])?;
                if !(16..=256).contains(&nonce.len()) {
                    return Err(wrong(NONCE_VALUE));
                }
                once(&mut self.nonce, ty, nonce)
            }
            SKD => once(&mut self.sk_d, ty, value(&[SKD_VALUE])?),
            LIFE => once(&mut self.lifetime, ty, seconds(&[LIFE_VALUE])?),
            ROLL1 => once(&mut self.rollover1, ty, seconds(&[ROLL1_VALUE, LIFE_VALUE])?),
            ROLL2 => once(&mut self.rollover2, ty, seconds(&[ROLL2_VALUE, LIFE_VALUE])?),
            _ => Err(PutError::UnknownTransform { ty }),
        }
    }

    fn finish(self, spi: u32) -> Result<MpsaPut, PutError> {
        let missing = |ty: u8| PutError::Missing { ty };
        let (encr, key_bits) = self.encr.ok_or(missing(ENCR))?;
        Ok(MpsaPut {
            spi,
            encr,
            key_bits,
            prf: self.prf.ok_or(missing(PRF))?,
            // An AEAD has none.
            integ: self.integ.unwrap_or(0),
            nonce: self.nonce.ok_or(missing(NONCE))?.to_vec(),
            sk_d: Zeroizing::new(self.sk_d.ok_or(missing(SKD))?.to_vec()),
            lifetime: self.lifetime.ok_or(missing(LIFE))?,
            rollover1: self.rollover1.ok_or(missing(ROLL1))?,
            rollover2: self.rollover2.ok_or(missing(ROLL2))?,
        })
    }
}

fn once<T>(place: &mut Option<T>, ty: u8, value: T) -> Result<(), PutError> {
    if place.is_some() {
        return Err(PutError::Repeated { ty });
    }
    *place = Some(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The draft's example, section 3.2.2: AES-CBC 256, PRF_HMAC_SHA1, AUTH_HMAC_SHA1_96, by hand from its picture; with the
    /// attribute 16386 in ROLL1 and ROLL2, as the picture has it.
    const EXAMPLE: &str = concat!(
        "000000a4",                 // last, reserved, proposal length 164
        "01030408",                 // number 1, ESP, SPI of 4 octets, 8 transforms
        "c0ffee01",                 // SPI
        "0300000c0100000c800e0100", // ENCR_AES_CBC, key length 256
        "0300000802000002",         // PRF_HMAC_SHA1
        "0300000803000002",         // AUTH_HMAC_SHA1_96
        "0300002cf1000001",
        "40000020",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "03000020f2000001",
        "40010014",
        "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        "03000010f3000001",
        "40020004",
        "00000e10",
        "03000010f4000001",
        "40020004",
        "0000003c",
        "00000010f5000001",
        "40020004",
        "00000078",
    );

    fn example() -> Notify {
        let data = hex::decode(EXAMPLE).unwrap();
        Notify { protocol: 3, spi: vec![0xc0, 0xff, 0xee, 0x01], ty: NotifyType::from(MPSA_PUT), data }
    }

    #[test]
    fn the_drafts_example_is_read() {
        let notify = example();
        assert_eq!(notify.data.len(), 0xa4);
        let put = MpsaPut::parse(&notify).unwrap();
        assert_eq!((put.spi, put.encr, put.key_bits), (0xc0ff_ee01, 12, 256));
        assert_eq!((put.prf, put.integ), (2, 2));
        assert_eq!(put.nonce, (0..32).collect::<Vec<u8>>());
        assert_eq!(*put.sk_d, [0x0b; 20]);
        let times = [put.lifetime, put.rollover1, put.rollover2].map(|time| time.as_secs());
        assert_eq!(times, [3600, 60, 120]);
    }

    #[test]
    fn what_is_sent_follows_the_tables_and_differs_from_the_example_only_there() {
        let sent = MpsaPut::parse(&example()).unwrap().notify();
        let mut expected = example();
        let at = |needle: &str| EXAMPLE.find(needle).unwrap() / 2;
        expected.data[at("03000010f4") + 9] = 3;
        expected.data[at("00000010f5") + 9] = 4;
        assert_eq!(hex::encode(&sent.data), hex::encode(&expected.data));
        assert_eq!((sent.protocol, sent.spi), (3, expected.spi));
    }

    #[test]
    fn each_thing_that_can_be_wrong_is_named() {
        let with = |change: &dyn Fn(&mut Notify)| {
            let mut notify = example();
            change(&mut notify);
            MpsaPut::parse(&notify)
        };
        assert_eq!(with(&|n| n.protocol = 2), Err(PutError::Protocol { found: 2 }));
        assert_eq!(with(&|n| n.data[5] = 2), Err(PutError::Protocol { found: 2 }));
        assert_eq!(with(&|n| n.data[0] = 2), Err(PutError::SeveralProposals));
        assert_eq!(with(&|n| n.spi[0] ^= 1), Err(PutError::Spi), "the two SPIs differ");
        let reserved = with(&|n| {
            n.spi = vec![0, 0, 0, 7];
            n.data[8..12].copy_from_slice(&[0, 0, 0, 7]);
        });
        assert_eq!(reserved, Err(PutError::Spi));
        assert_eq!(with(&|n| n.data[28] = 9), Err(PutError::UnknownTransform { ty: 9 }));
        assert_eq!(with(&|n| n.data[36] = 2), Err(PutError::Repeated { ty: 2 }));
        let counted = with(&|n| n.data[7] = 7);
        assert!(matches!(counted, Err(PutError::Wire(_))), "octets behind the last transform: {counted:?}");
        let missing = with(&|n| {
            n.data.truncate(0xa4 - 16);
            n.data[3] = 0xa4 - 16;
            n.data[7] = 7;
        });
        assert_eq!(missing, Err(PutError::Missing { ty: 245 }));
        let wrong = with(&|n| n.data[0xa4 - 7] = 9);
        assert_eq!(wrong, Err(PutError::Attribute { ty: 245, attribute: 0x4009 }));
    }

    #[test]
    fn a_nonce_that_is_too_short_or_too_long_is_refused() {
        let mut put = MpsaPut::parse(&example()).unwrap();
        for (length, good) in [(15, false), (16, true), (256, true), (257, false)] {
            put.nonce = vec![7; length];
            assert_eq!(MpsaPut::parse(&put.notify()).is_ok(), good, "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            spi in 256_u32.., encr in any::<u16>(), key_bits in any::<u16>(), prf in any::<u16>(),
            integ in any::<u16>(), nonce in proptest::collection::vec(any::<u8>(), 16..=256),
            sk_d in proptest::collection::vec(any::<u8>(), 1..80), times in any::<[u32; 3]>(),
        ) {
            let [lifetime, rollover1, rollover2] = times.map(|time| Duration::from_secs(time.into()));
            let sk_d = Zeroizing::new(sk_d);
            let put = MpsaPut { spi, encr, key_bits, prf, integ, nonce, sk_d, lifetime, rollover1, rollover2 };
            prop_assert_eq!(MpsaPut::parse(&put.notify()), Ok(put));
        }

        #[test]
        fn no_octets_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..300), cut in any::<usize>()) {
            let mut notify = example();
            let mut mixed = notify.data.clone();
            mixed.truncate(cut % (mixed.len() + 1));
            mixed.extend(&data);
            let _ = MpsaPut::parse(&Notify { data: mixed, ..notify.clone() });
            notify.data = data;
            let _ = MpsaPut::parse(&notify);
        }
    }
}
