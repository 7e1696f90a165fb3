//! Which connections of this service show the same face to gateways.
//!
//! A client may tell a gateway that its IKE_SA is the only one of its identity, and the gateway then ends all others
//! (INITIAL_CONTACT, RFC 7296 section 2.4): good after a crash, bad when another connection of ours uses the same certificate.
//! So each connection joins before its first try and leaves when it has ended, and says so only while it is alone. Of two that
//! begin at the same time, both see the other and neither says it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// All connections, by the identity that they log in with.
#[derive(Debug, Clone, Default)]
pub struct Neighbours {
    faces: Arc<Mutex<BTreeMap<Vec<u8>, usize>>>,
}

impl Neighbours {
    /// A connection that logs in with this identity begins; it is over when the result is dropped.
    #[must_use]
    pub fn join(&self, face: Vec<u8>) -> Membership {
        *self.faces.lock().unwrap_or_else(PoisonError::into_inner).entry(face.clone()).or_default() += 1;
        Membership { neighbours: self.clone(), face }
    }
}

/// One connection's place among those with the same identity.
#[derive(Debug)]
pub struct Membership {
    neighbours: Neighbours,
    face: Vec<u8>,
}

impl Membership {
    /// Whether others show the same face.
    #[must_use]
    pub fn has_others(&self) -> bool {
        let faces = self.neighbours.faces.lock().unwrap_or_else(PoisonError::into_inner);
        faces.get(&self.face).is_some_and(|count| *count > 1)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut faces = self.neighbours.faces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = faces.get_mut(&self.face) {
            *count -= 1;
            if *count == 0 {
                faces.remove(&self.face);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_knows_of_those_with_the_same_face_while_they_last() {
        let neighbours = Neighbours::default();
        let first = neighbours.join(vec![1]);
        assert!(!first.has_others());
        let other = neighbours.join(vec![2]);
        assert!(!first.has_others() && !other.has_others());
        let second = neighbours.join(vec![1]);
        assert!(first.has_others() && second.has_others());
        drop(first);
        assert!(!second.has_others());
        drop(second);
        assert_eq!(neighbours.faces.lock().unwrap().len(), 1, "only the other face is left");
    }
}
