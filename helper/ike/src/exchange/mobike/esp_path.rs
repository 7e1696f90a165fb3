//! Where ESP comes from: a sign of life only when it comes by the path in use (RFC 4555 section 3.12).
//!
//! A peer that goes on sending to where we were is alive, but has not followed us. So after a move each CHILD_SA that has
//! received is taken to receive by the old path, until the data path tells that its packets come by the new one.

use super::super::sa::IkeSa;
use crate::exchange::Path;

impl IkeSa {
    /// ESP of the CHILD_SA with our SPI `spi_in` comes by this path from now on.
    pub fn esp_came_by(&mut self, spi_in: u32, path: Path) {
        if let Some(life) = self.renewal.life(spi_in) {
            life.came_by = Some(path);
        }
    }

    /// Whether ESP of this CHILD_SA, as far as is known, comes by the path in use.
    #[must_use]
    pub fn comes_as_expected(&self, spi_in: u32) -> bool {
        let life = self.renewal.lives.iter().find(|life| life.spi_in == spi_in);
        let came_by = life.and_then(|life| life.came_by);
        came_by.is_none_or(|path| (path.link, path.remote) == (self.path.link, self.path.remote))
    }

    /// The path in use is to be another one from now on.
    pub(super) fn leave_path(&mut self, old: Path) {
        for life in self.renewal.lives.iter_mut().filter(|life| life.heard) {
            life.came_by.get_or_insert(old);
        }
    }
}
