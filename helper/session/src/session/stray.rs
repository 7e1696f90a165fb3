//! Messages and packets from the gateway that nothing here belongs to: it is told, with moderation (RFC 7296 sections 2.5 and
//! 2.21.4), and ESP that comes by another path than the one in use is noted (RFC 4555 section 3.12).

use std::net::SocketAddr;
use std::time::Duration;

use rand_core::CryptoRng;
use ropewalk_ike::exchange::version::refuse_version;
use ropewalk_ike::exchange::{Path, Transmit};
use ropewalk_ike::time::Instant;

use super::{Session, State};

/// The gateway is told of such things this often.
const INTERVAL: Duration = Duration::from_secs(5);

impl Session {
    /// ESP for an SPI that is not known came from this address. A gateway that we have an IKE_SA with is told so there; it
    /// changes nothing, but shows in its log why packets are lost.
    pub fn unknown_spi(&mut self, now: Instant, spi: u32, from: SocketAddr, rng: &mut dyn CryptoRng) {
        if self.may_tell(now, from)
            && let State::Connected(sa) = &mut self.state
        {
            tracing::debug!(spi = format_args!("{spi:08x}"), %from, "the gateway sends ESP for an unknown SPI");
            sa.tell_invalid_spi(now, spi, rng);
            self.drain_sa(now, rng);
        }
    }

    /// ESP of the CHILD_SA with our SPI `spi_in` comes by this path from now on.
    pub fn esp_came_by(&mut self, spi_in: u32, path: Path) {
        if let State::Connected(sa) = &mut self.state {
            sa.esp_came_by(spi_in, path);
        }
    }

    /// The gateway asks in another major version.
    pub(super) fn refuse_version(&mut self, now: Instant, path: Path, datagram: &[u8], major: u8) {
        if self.may_tell(now, path.remote) {
            let answer = refuse_version(datagram, major, true);
            self.transmits.extend(answer.map(|message| Transmit { path, message }));
        }
    }

    /// Whether this is the gateway's address, and it was not told anything of the kind a moment ago.
    fn may_tell(&mut self, now: Instant, remote: SocketAddr) -> bool {
        let State::Connected(sa) = &self.state else { return false };
        let often = self.told_at.is_some_and(|at| now < at + INTERVAL);
        if often || remote != sa.path().remote {
            return false;
        }
        self.told_at = Some(now);
        true
    }
}
