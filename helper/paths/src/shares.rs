//! Which flow takes which path when several share the load.
//!
//! Weighted rendezvous hashing: every path draws a number for the flow, the highest wins. So a flow stays where it is while
//! its path is there, and a path that comes or goes moves only the flows that are its own: nothing is reordered.

use crate::PathId;

/// The paths that share, with their weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Each with a weight above zero.
    paths: Vec<(PathId, u32)>,
}

impl Shares {
    /// Paths with their weights; those of weight zero are left out.
    #[must_use]
    pub fn new(mut paths: Vec<(PathId, u32)>) -> Self {
        paths.retain(|(_, weight)| *weight > 0);
        Self { paths }
    }

    /// The paths that share, and their weights.
    #[must_use]
    pub fn paths(&self) -> &[(PathId, u32)] {
        &self.paths
    }

    /// The path of the flow with this hash; `None` without paths.
    #[must_use]
    pub fn path_of(&self, flow: u64) -> Option<PathId> {
        let drawn = self.paths.iter().map(|(path, weight)| (draw(flow, *path, *weight), *path));
        drawn.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, path)| path)
    }
}

/// `u^(1/w)` with `u` uniform in (0, 1), in logarithms: the highest of these falls on each path by its weight.
fn draw(flow: u64, path: PathId, weight: u32) -> f64 {
    let mixed = mix(flow ^ mix(u64::from(path.0).wrapping_add(0x9e37_79b9_7f4a_7c15)));
    // The upper 52 bits, at the middle of their interval: neither 0 nor 1.
    #[allow(clippy::cast_precision_loss)]
    let uniform = ((mixed >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    uniform.ln() / f64::from(weight)
}

/// The finaliser of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PathId = PathId(1);
    const B: PathId = PathId(2);
    const C: PathId = PathId(3);
    const FLOWS: u64 = 20_000;

    fn count(shares: &Shares, path: PathId) -> u64 {
        (0..FLOWS).filter(|flow| shares.path_of(*flow) == Some(path)).count() as u64
    }

    #[test]
    fn flows_fall_by_weight() {
        let shares = Shares::new(vec![(A, 1), (B, 3)]);
        let b = count(&shares, B);
        assert!((14_600..15_400).contains(&b), "{b} of {FLOWS}");
    }

    #[test]
    fn a_path_that_goes_moves_only_its_own_flows() {
        let before = Shares::new(vec![(A, 1), (B, 1), (C, 1)]);
        let after = Shares::new(vec![(A, 1), (B, 1)]);
        for flow in 0..FLOWS {
            if before.path_of(flow) != Some(C) {
                assert_eq!(before.path_of(flow), after.path_of(flow));
            }
        }
    }

    #[test]
    fn a_path_of_no_weight_gets_nothing_and_no_path_is_none() {
        assert_eq!(count(&Shares::new(vec![(A, 0), (B, 2)]), A), 0);
        assert_eq!(Shares::default().path_of(7), None);
    }
}
