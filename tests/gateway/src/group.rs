//! The group's SA, as the gateway makes it and rolls it over (draft-yamaya-ipsecme-mpsa, sections 3.3.1 and 3.3.3).

use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::multi_point::put::MpsaPut;
use ropewalk_ike::time::Instant;
use zeroize::Zeroizing;

/// Octets of the nonce: as long as SK_d.
const NONCE_LEN: usize = 32;
/// SPIs below are reserved (RFC 4303 section 2.1).
const FIRST_SPI: u32 = 256;

/// What the group's SAs are.
#[derive(Clone, Copy, Debug)]
pub struct GroupSettings {
    /// The number of the encryption algorithm.
    pub encr: u16,
    /// Its key length in bits; 0 for none.
    pub key_bits: u16,
    /// The number of the pseudorandom function.
    pub prf: u16,
    /// Octets of SK_d: the function's preferred key length.
    pub sk_d_len: usize,
    /// The number of the integrity algorithm; 0 for none.
    pub integ: u16,
    /// How long an SA is good.
    pub lifetime: Duration,
    /// The next one is made when one is so old.
    pub renew_after: Duration,
    /// A new SA is sent with after this.
    pub rollover1: Duration,
    /// An old SA is not heard any more after this.
    pub rollover2: Duration,
}

impl Default for GroupSettings {
    /// AES-CBC with 256 bits and HMAC-SHA2-256 for an hour; two minutes to change over.
    fn default() -> Self {
        Self {
            encr: 12,
            key_bits: 256,
            prf: 5,
            sk_d_len: 32,
            integ: 12,
            lifetime: Duration::from_secs(3600),
            renew_after: Duration::from_secs(3000),
            rollover1: Duration::from_secs(60),
            rollover2: Duration::from_secs(120),
        }
    }
}

/// An SA as it was when it was made.
#[derive(Debug)]
struct Made {
    put: MpsaPut,
    at: Instant,
}

impl Made {
    /// What is left of it.
    fn left(&self, now: Instant) -> Option<MpsaPut> {
        let age = now.saturating_since(self.at);
        let left = |time: Duration| time.saturating_sub(age);
        let put = &self.put;
        let (lifetime, rollover1, rollover2) = (left(put.lifetime), left(put.rollover1), left(put.rollover2));
        // It is handed out in whole seconds.
        (lifetime.as_secs() > 0).then(|| MpsaPut { lifetime, rollover1, rollover2, ..put.clone() })
    }
}

/// The group's SA, and the one before it while it is still heard.
#[derive(Debug)]
pub struct Group {
    settings: GroupSettings,
    current: Made,
    previous: Option<Made>,
}

impl Group {
    /// A group with its first SA.
    pub fn new(now: Instant, settings: GroupSettings, rng: &mut dyn CryptoRng) -> Self {
        Self { settings, current: make(now, settings, 0, rng), previous: None }
    }

    /// What a new endpoint needs, in order: during a rollover the old one, too, for the others may send with it.
    #[must_use]
    pub fn for_newcomer(&self, now: Instant) -> Vec<MpsaPut> {
        let heard =
            |made: &&Made| now < self.current.at + self.settings.rollover2 && made.at < self.current.at;
        let old = self.previous.as_ref().filter(heard);
        old.into_iter().chain([&self.current]).filter_map(|made| made.left(now)).collect()
    }

    /// Makes the next SA: what every endpoint is to be told.
    pub fn renew(&mut self, now: Instant, rng: &mut dyn CryptoRng) -> MpsaPut {
        let next = make(now, self.settings, self.current.put.spi, rng);
        let put = next.put.clone();
        self.previous = Some(std::mem::replace(&mut self.current, next));
        put
    }

    /// When the next SA is to be made.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.current.at + self.settings.renew_after
    }

    /// The SPIs of the SAs.
    #[must_use]
    pub fn spis(&self) -> Vec<u32> {
        self.previous.iter().chain([&self.current]).map(|made| made.put.spi).collect()
    }
}

fn make(at: Instant, settings: GroupSettings, last: u32, rng: &mut dyn CryptoRng) -> Made {
    let GroupSettings { encr, key_bits, prf, integ, lifetime, rollover1, rollover2, .. } = settings;
    let mut nonce = vec![0; NONCE_LEN];
    rng.fill_bytes(&mut nonce);
    let mut sk_d = Zeroizing::new(vec![0; settings.sk_d_len]);
    rng.fill_bytes(&mut sk_d);
    let usable = |spi: &u32| *spi >= FIRST_SPI && *spi != last;
    let spi = std::iter::repeat_with(|| rng.next_u32()).find(usable).unwrap_or(FIRST_SPI);
    let put = MpsaPut { spi, encr, key_bits, prf, integ, nonce, sk_d, lifetime, rollover1, rollover2 };
    Made { put, at }
}
