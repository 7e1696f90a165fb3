//! Whether the proposals of a profile are ones that the protocol engine knows.

use ropewalk_ike::proposal::{parse_esp_list, parse_ike_list};
use ropewalk_profile::ProposalKind;

/// Checks one proposal string.
///
/// # Errors
/// The engine's own words on what it does not know.
pub fn check(kind: ProposalKind, text: &str) -> Result<(), String> {
    match kind {
        ProposalKind::Ike => parse_ike_list(&[text]).map(|_| ()).map_err(|error| error.to_string()),
        ProposalKind::Esp => parse_esp_list(&[text]).map(|_| ()).map_err(|error| error.to_string()),
    }
}
