//! The state of every connection, for everyone who watches.
//!
//! Connections write through a [`StatusPublisher`]; the server's client tasks read. There is no queue between
//! them: a reader that was slow finds the newest state of each connection, never a backlog.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ropewalk_ipc::{State, Status};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

/// Ended connections that are remembered per user, so that `status` can tell how they ended.
const MAX_ENDED: usize = 64;

/// Whose connection with which profile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// User id of who started the connection.
    pub owner: u32,
    /// Name of the profile.
    pub profile: String,
}

/// One connection's state as it stands.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The state, with `owned` unset; see [`Entry::seen_by`].
    pub status: Status,
    /// Grows with every change of state.
    pub version: u64,
    /// Grows with every change of a counter or of state.
    pub tick: u64,
}

/// Every connection's state; cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: Mutex<BTreeMap<Key, Entry>>,
    version: watch::Sender<u64>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { inner: Arc::new(Inner { entries: Mutex::default(), version: watch::Sender::new(0) }) }
    }
}

impl Registry {
    /// A copy of everything, in a stable order.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(Key, Entry)> {
        self.entries().iter().map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// One connection's state.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Status> {
        self.entries().get(key).map(|entry| entry.status.clone())
    }

    /// Wakes at every change of a state (not of counters).
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.version.subscribe()
    }

    /// A publisher for one connection, starting from a fresh [`State::Disconnected`].
    #[must_use]
    pub fn publisher(&self, key: Key) -> StatusPublisher {
        let publisher = StatusPublisher { registry: self.clone(), key };
        let profile = publisher.key.profile.clone();
        publisher.update(|status| *status = Status { profile: Some(profile), ..Status::default() });
        publisher
    }

    /// Changes a state that is there already, from outside its connection.
    pub fn amend(&self, key: &Key, change: impl FnOnce(&mut Status)) {
        if self.get(key).is_some() {
            StatusPublisher { registry: self.clone(), key: key.clone() }.update(change);
        }
    }

    /// Forgets an ended connection, when its profile is removed. An active one stays.
    pub fn forget(&self, key: &Key) {
        let mut entries = self.entries();
        if entries.get(key).is_some_and(|entry| !entry.status.state.is_active()) {
            entries.remove(key);
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is remembered of ended connections within bounds, oldest first.
    fn prune(entries: &mut BTreeMap<Key, Entry>, owner: u32) {
        let mut ended: Vec<(String, Key)> = entries
            .iter()
            .filter(|(key, entry)| key.owner == owner && !entry.status.state.is_active())
            .map(|(key, entry)| (entry.status.since.clone(), key.clone()))
            .collect();
        if ended.len() > MAX_ENDED {
            ended.sort();
            for (_, key) in ended.drain(..ended.len() - MAX_ENDED) {
                entries.remove(&key);
            }
        }
    }
}

impl Entry {
    /// The state as a user may see it: one's own (and, for root, every) connection whole, others' only as a fact.
    #[must_use]
    pub fn seen_by(&self, owner: u32, uid: u32) -> Status {
        if uid == owner {
            Status { owned: true, ..self.status.clone() }
        } else if uid == 0 {
            self.status.clone()
        } else {
            self.status.redacted()
        }
    }
}

/// What one connection writes its state through. The connection sets what it knows with
/// [`StatusPublisher::update`], also just the counters; whether that is a change of state is found out here.
#[derive(Debug, Clone)]
pub struct StatusPublisher {
    registry: Registry,
    key: Key,
}

impl StatusPublisher {
    /// Changes the state. `since` is set here whenever `state` changes; watchers are woken when anything but a
    /// counter changed, and see counters at their next tick.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut entries = self.registry.entries();
        let entry = entries.entry(self.key.clone()).or_insert_with(|| Entry {
            status: Status {
                profile: Some(self.key.profile.clone()),
                since: now_rfc3339(),
                ..Status::default()
            },
            version: 0,
            tick: 0,
        });
        let before = entry.status.clone();
        change(&mut entry.status);
        if entry.status.state != before.state || entry.status.since.is_empty() {
            entry.status.since = now_rfc3339();
        } else {
            entry.status.since.clone_from(&before.since);
        }
        if entry.status == before && entry.version > 0 {
            return;
        }
        entry.tick += 1;
        if entry.version > 0 && entry.status.without_counters() == before.without_counters() {
            return;
        }
        entry.version += 1;
        let (from, to) = (before.state, entry.status.state);
        if !to.is_active() {
            Registry::prune(&mut entries, self.key.owner);
        }
        drop(entries);
        if from != to {
            tracing::info!(profile = %self.key.profile, from = from.as_str(), to = to.as_str(), "state");
        }
        self.registry.inner.version.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Sets the state alone.
    pub fn set_state(&self, state: State) {
        self.update(|status| status.state = state);
    }

    /// The state as last written.
    #[must_use]
    pub fn current(&self) -> Status {
        self.registry.get(&self.key).unwrap_or_default()
    }

    /// Whose connection with which profile.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }
}

/// The present wall time, RFC 3339 in UTC with milliseconds, as every time in a status is written.
#[must_use]
pub fn now_rfc3339() -> String {
    rfc3339(OffsetDateTime::now_utc())
}

/// A wall time, RFC 3339 with milliseconds.
#[must_use]
pub fn rfc3339(time: OffsetDateTime) -> String {
    let time = time.replace_nanosecond(u32::from(time.millisecond()) * 1_000_000).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(profile: &str) -> Key {
        Key { owner: 1000, profile: profile.to_owned() }
    }

    #[test]
    fn a_counter_is_no_change_of_state_and_a_state_is() {
        let registry = Registry::default();
        let mut watcher = registry.subscribe();
        let publisher = registry.publisher(key("a"));
        watcher.mark_unchanged();
        publisher.update(|status| status.totals.bytes_in = 5);
        assert!(!watcher.has_changed().unwrap());
        publisher.set_state(State::Connecting);
        assert!(watcher.has_changed().unwrap());
        let status = registry.get(&key("a")).unwrap();
        assert_eq!((status.totals.bytes_in, status.state), (5, State::Connecting));
        assert!(status.since.ends_with('Z'), "{}", status.since);
    }

    #[test]
    fn others_see_that_a_tunnel_exists_and_nothing_of_it() {
        let registry = Registry::default();
        let publisher = registry.publisher(key("secret place"));
        publisher.update(|status| {
            status.state = State::Connected;
            status.gateway.address = Some("192.0.2.1".into());
        });
        let (key, entry) = registry.snapshot().remove(0);
        let seen = entry.seen_by(key.owner, 1001);
        assert_eq!(seen.state, State::Connected);
        assert_eq!((seen.profile, seen.gateway.address, seen.owned), (None, None, false));
        assert!(entry.seen_by(key.owner, 1000).owned);
        assert_eq!(entry.seen_by(key.owner, 0).profile.as_deref(), Some("secret place"));
    }

    #[test]
    fn ended_connections_are_remembered_within_bounds() {
        let registry = Registry::default();
        for number in 0..MAX_ENDED + 10 {
            let _publisher = registry.publisher(key(&number.to_string()));
        }
        assert_eq!(registry.snapshot().len(), MAX_ENDED);
    }

    #[test]
    fn time_is_rfc_3339_in_utc() {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_789).unwrap();
        assert_eq!(rfc3339(time), "2023-11-14T22:13:20.123Z");
    }
}
