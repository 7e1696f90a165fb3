//! The two bounded queues from the threads to the owner: IKE and everything else. Neither can fill the other.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::sys::{self, Wake};
use crate::event::{Event, IkeDatagram};

/// Locks, also after a panic elsewhere: what these locks guard is never half-changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(super) struct Queues {
    ike: Mutex<VecDeque<IkeDatagram>>,
    ike_limit: usize,
    other: Mutex<VecDeque<Event>>,
    other_limit: usize,
    wake: Wake,
}

impl Queues {
    pub(super) fn new(ike_limit: usize, other_limit: usize) -> std::io::Result<Self> {
        Ok(Self {
            ike: Mutex::new(VecDeque::new()),
            ike_limit: ike_limit.max(1),
            other: Mutex::new(VecDeque::new()),
            other_limit: other_limit.max(1),
            wake: Wake::new()?,
        })
    }

    /// Queues an IKE datagram; `false` when the queue is full.
    pub(super) fn push_ike(&self, datagram: IkeDatagram) -> bool {
        self.push(&self.ike, self.ike_limit, datagram)
    }

    /// Queues another event; `false` when the queue is full.
    pub(super) fn push_event(&self, event: Event) -> bool {
        self.push(&self.other, self.other_limit, event)
    }

    fn push<T>(&self, queue: &Mutex<VecDeque<T>>, limit: usize, item: T) -> bool {
        let mut queue = lock(queue);
        if queue.len() >= limit {
            return false;
        }
        queue.push_back(item);
        let first = queue.len() == 1;
        drop(queue);
        if first {
            self.wake.wake();
        }
        true
    }
}

/// Where the owner reads events. As a file descriptor it is readable when there are some: wait for that, then call
/// [`Self::try_recv`] until it returns `None`, and only then wait again.
#[derive(Debug)]
pub struct EventReceiver {
    queues: Arc<Queues>,
    ike_first: bool,
}

impl EventReceiver {
    pub(super) const fn new(queues: Arc<Queues>) -> Self {
        Self { queues, ike_first: true }
    }

    /// The next event, when there is one. IKE and other events take turns.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.pop().or_else(|| {
            // Cleared before the last look: what comes after it makes the descriptor readable again.
            self.queues.wake.clear();
            self.pop()
        })
    }

    /// The next event, within `timeout`. For owners that have a thread to wait with.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Event> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(event) = self.try_recv() {
                return Some(event);
            }
            let left = match deadline {
                Some(deadline) => Some(deadline.checked_duration_since(Instant::now())?),
                None => None,
            };
            sys::poll([(self.as_fd(), libc::POLLIN)], left).ok()?;
        }
    }

    fn pop(&mut self) -> Option<Event> {
        let ike = || lock(&self.queues.ike).pop_front().map(Event::Ike);
        let other = || lock(&self.queues.other).pop_front();
        let event = if self.ike_first { ike().or_else(other) } else { other().or_else(ike) };
        self.ike_first = !self.ike_first;
        event
    }
}

impl AsFd for EventReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queues.wake.as_fd()
    }
}

impl AsRawFd for EventReceiver {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sa::SocketId;

    fn ike(n: u8) -> IkeDatagram {
        let address = "192.0.2.1:4500".parse().unwrap();
        IkeDatagram { socket: SocketId(0), local: address, remote: address, bytes: vec![n] }
    }

    fn readable(receiver: &EventReceiver) -> bool {
        sys::poll([(receiver.as_fd(), libc::POLLIN)], Some(Duration::ZERO)).unwrap()[0] != 0
    }

    #[test]
    fn a_full_queue_of_one_kind_leaves_the_other_open() {
        let queues = Arc::new(Queues::new(2, 2).unwrap());
        let mut receiver = EventReceiver::new(Arc::clone(&queues));
        let other = Event::SequenceLow { spi: 1, remaining: 2 };
        assert!(queues.push_event(other.clone()) && queues.push_event(other.clone()));
        assert!(!queues.push_event(other.clone()));
        assert!(queues.push_ike(ike(1)) && queues.push_ike(ike(2)));
        assert!(!queues.push_ike(ike(3)));
        let got: Vec<_> = std::iter::from_fn(|| receiver.try_recv()).collect();
        assert_eq!(got, [Event::Ike(ike(1)), other.clone(), Event::Ike(ike(2)), other]);
    }

    #[test]
    fn the_descriptor_is_readable_exactly_while_something_waits() {
        let queues = Arc::new(Queues::new(4, 4).unwrap());
        let mut receiver = EventReceiver::new(Arc::clone(&queues));
        assert!(!readable(&receiver));
        for round in 0..3 {
            assert!(queues.push_ike(ike(round)) && queues.push_ike(ike(round)));
            assert!(readable(&receiver));
            assert!(receiver.try_recv().is_some());
            assert!(readable(&receiver));
            assert!(receiver.try_recv().is_some());
            assert!(receiver.try_recv().is_none());
            assert!(!readable(&receiver));
        }
        assert_eq!(receiver.recv_timeout(Duration::from_millis(1)), None);
    }
}
