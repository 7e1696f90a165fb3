//! Cookies that make a client show that it receives at its address, without remembering it (RFC 7296 section 2.6).
//!
//! Cookie = version | HMAC-SHA2-256(secret, Ni | IPi | SPIi). The secret changes; the one before it is still good, so that
//! a cookie is valid for at least one interval.

use std::net::IpAddr;
use std::time::Duration;

use rand_core::CryptoRng;
use ring::hmac;
use ropewalk_ike::time::Instant;

/// How long a secret is used for new cookies.
const INTERVAL: Duration = Duration::from_secs(60);

struct Secret {
    version: u8,
    key: hmac::Key,
}

/// Makes and checks cookies.
#[derive(Default)]
pub struct CookieJar {
    current: Option<Secret>,
    previous: Option<Secret>,
    since: Instant,
}

impl std::fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CookieJar").finish_non_exhaustive()
    }
}

/// What a cookie is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The initiator's nonce.
    pub nonce: &'a [u8],
    /// Its address, as seen here.
    pub address: IpAddr,
    /// Its SPI.
    pub spi: u64,
}

impl CookieJar {
    /// The cookie to ask this initiator for.
    pub fn make(&mut self, now: Instant, subject: Subject<'_>, rng: &mut dyn CryptoRng) -> Vec<u8> {
        self.renew(now, rng);
        self.current.as_ref().map(|secret| secret.cookie(subject)).unwrap_or_default()
    }

    /// Whether this is a cookie that was made for this initiator lately.
    #[must_use]
    pub fn check(&self, subject: Subject<'_>, cookie: &[u8]) -> bool {
        let mut secrets = self.current.iter().chain(&self.previous);
        secrets.any(|secret| secret.verify(subject, cookie))
    }

    fn renew(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        if self.current.is_some() && now.saturating_since(self.since) < INTERVAL {
            return;
        }
        let mut octets = zeroize::Zeroizing::new([0_u8; 32]);
        rng.fill_bytes(octets.as_mut());
        let version = self.current.as_ref().map_or(0, |current| current.version.wrapping_add(1));
        let key = hmac::Key::new(hmac::HMAC_SHA256, octets.as_slice());
        self.previous = self.current.replace(Secret { version, key });
        self.since = now;
    }
}

impl Secret {
    fn cookie(&self, subject: Subject<'_>) -> Vec<u8> {
        let mut cookie = vec![self.version];
        cookie.extend_from_slice(hmac::sign(&self.key, &octets(subject)).as_ref());
        cookie
    }

    fn verify(&self, subject: Subject<'_>, cookie: &[u8]) -> bool {
        let Some((version, tag)) = cookie.split_first() else { return false };
        *version == self.version && hmac::verify(&self.key, &octets(subject), tag).is_ok()
    }
}

fn octets(subject: Subject<'_>) -> Vec<u8> {
    let mut octets = subject.nonce.to_vec();
    match subject.address.to_canonical() {
        IpAddr::V4(v4) => octets.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => octets.extend_from_slice(&v6.octets()),
    }
    octets.extend_from_slice(&subject.spi.to_be_bytes());
    octets
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_initiator_and_for_a_while() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut jar = CookieJar::default();
        let subject = Subject { nonce: &[7; 32], address: IpAddr::from([192, 0, 2, 1]), spi: 5 };
        let cookie = jar.make(Instant::ZERO, subject, &mut rng);
        assert!(cookie.len() <= 64);
        assert!(jar.check(subject, &cookie));
        assert!(!jar.check(Subject { spi: 6, ..subject }, &cookie));
        assert!(!jar.check(Subject { nonce: &[8; 32], ..subject }, &cookie));
        assert!(!jar.check(Subject { address: IpAddr::from([192, 0, 2, 2]), ..subject }, &cookie));
        assert!(!jar.check(subject, &[]));
        let later = Instant::ZERO + INTERVAL;
        assert_ne!(jar.make(later, subject, &mut rng), cookie);
        assert!(jar.check(subject, &cookie), "the secret before this one is still good");
        jar.make(later + INTERVAL, subject, &mut rng);
        assert!(!jar.check(subject, &cookie));
    }
}
