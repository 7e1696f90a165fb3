//! `[multi_point_sa]` of the gateway's TOML file.

use std::time::Duration;

use ropewalk_gateway::GroupSettings;
use serde::Deserialize;

/// What the group's SAs are; times in seconds.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiPointSa {
    encryption: Encryption,
    integrity: Integrity,
    lifetime: u64,
    renew_after: u64,
    rollover1: u64,
    rollover2: u64,
}

/// Of the group's SA.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encryption {
    Aes128,
    Aes256,
    /// A counter mode, which no endpoint may take: for tests of that.
    Aes256Gcm16,
}

/// Of the group's SA, and the pseudorandom function with the same hash.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Integrity {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Default for MultiPointSa {
    fn default() -> Self {
        let usual = GroupSettings::default();
        Self {
            encryption: Encryption::Aes256,
            integrity: Integrity::Sha256,
            lifetime: usual.lifetime.as_secs(),
            renew_after: usual.renew_after.as_secs(),
            rollover1: usual.rollover1.as_secs(),
            rollover2: usual.rollover2.as_secs(),
        }
    }
}

impl MultiPointSa {
    /// As the gateway knows it.
    ///
    /// # Errors
    /// Times that leave the group without an SA.
    pub fn settings(&self) -> anyhow::Result<GroupSettings> {
        let changed_over = self.renew_after.checked_add(self.rollover2);
        anyhow::ensure!(
            self.rollover1 <= self.rollover2 && changed_over.is_some_and(|at| at <= self.lifetime),
            "multi_point_sa: rollover1 is at most rollover2, and renew_after and rollover2 together at most lifetime"
        );
        let (encr, key_bits) = match self.encryption {
            Encryption::Aes128 => (12, 128),
            Encryption::Aes256 => (12, 256),
            Encryption::Aes256Gcm16 => (20, 256),
        };
        let (prf, sk_d_len, integ) = match self.integrity {
            Integrity::Sha1 => (2, 20, 2),
            Integrity::Sha256 => (5, 32, 12),
            Integrity::Sha384 => (6, 48, 13),
            Integrity::Sha512 => (7, 64, 14),
        };
        Ok(GroupSettings {
            encr,
            key_bits,
            prf,
            sk_d_len,
            integ: if encr == 12 { integ } else { 0 },
            lifetime: Duration::from_secs(self.lifetime),
            renew_after: Duration::from_secs(self.renew_after),
            rollover1: Duration::from_secs(self.rollover1),
            rollover2: Duration::from_secs(self.rollover2),
        })
    }
}
