//! What an IKE_SA wants from the peer: one request at a time (RFC 7296 section 2.3), the others wait in a queue.

use rand_core::CryptoRng;

use super::{CloseReason, IkeSa};
use crate::error::PeerMisbehaved;
use crate::exchange::create_child_sa::PendingChild;
use crate::exchange::mobike::{MobikeTask, Travelled};
use crate::exchange::protect::Opened;
use crate::exchange::rekey_ike::PendingIke;
use crate::exchange::retransmit::{Outstanding, RetransmitPolicy};
use crate::exchange::{Path, Transmit};
use crate::time::Instant;
use crate::wire::{ExchangeType, Header, Payload, SwitchNotice};

/// What we want from the peer.
#[derive(Debug)]
pub(in crate::exchange) enum Task {
    /// An empty INFORMATIONAL: is the peer there?
    Liveness,
    /// Delete CHILD_SAs by our SPIs.
    DeleteChildren(Vec<u32>),
    /// Delete the IKE_SA.
    DeleteIke,
    /// Tell the peer something.
    Inform(Vec<Payload>),
    /// A further CHILD_SA, or one in the place of another.
    CreateChild(Box<PendingChild>),
    /// An IKE_SA in the place of this one.
    RekeyIke(Box<PendingIke>),
    /// Something of RFC 4555.
    Mobike(MobikeTask),
    /// How the path of this IKE_SA is to be used.
    Switch(SwitchNotice),
    /// Does the path carry a datagram of so many octets?
    Size(usize),
}

pub(in crate::exchange) struct InFlight {
    pub(in crate::exchange) outstanding: Outstanding,
    pub(in crate::exchange) task: Task,
    pub(in crate::exchange) path: Path,
    /// It went by another path first.
    pub(in crate::exchange) rerouted: bool,
}

impl IkeSa {
    pub(in crate::exchange) fn request_header(&self, exchange: ExchangeType) -> Header {
        Header {
            spi_i: self.spis.initiator,
            spi_r: self.spis.responder,
            next_payload: 0,
            exchange,
            flags: self.flags(false),
            message_id: self.next_request,
        }
    }

    /// Sends the next request if none is under way.
    pub(in crate::exchange) fn start_next(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        while self.in_flight.is_none() && !self.closed {
            if self.is_leaving() {
                self.tasks.retain(|task| matches!(task, Task::DeleteIke));
            }
            self.queue_mobike();
            let Some(mut task) = self.tasks.pop_front() else { return };
            if self.lacks_message_ids() && !matches!(task, Task::DeleteIke) {
                self.expire(now, rng);
                continue;
            }
            let mut path = self.path;
            let patience =
                if self.is_patient() { RetransmitPolicy::PATIENT } else { RetransmitPolicy::ESTABLISHED };
            let (exchange, payloads, policy) = match &mut task {
                Task::Liveness => {
                    let policy = self.liveness_policy();
                    let mut payloads = self.liveness_payloads();
                    payloads.extend(self.report_request());
                    (ExchangeType::Informational, payloads, policy)
                }
                Task::DeleteChildren(spis) => {
                    spis.retain(|spi| self.children.iter().any(|child| child.spi_in == *spi));
                    if spis.is_empty() {
                        continue;
                    }
                    let delete = Self::delete_payload(spis);
                    (ExchangeType::Informational, vec![delete], patience)
                }
                Task::DeleteIke => {
                    let delete = Payload::Delete(crate::wire::Delete::ike());
                    (ExchangeType::Informational, vec![delete], self.renewal.farewell_policy())
                }
                Task::Inform(payloads) => (ExchangeType::Informational, payloads.clone(), patience),
                Task::CreateChild(pending) => {
                    if !self.is_wanted(pending) {
                        continue;
                    }
                    pending.goes_out_by(path);
                    (ExchangeType::CreateChildSa, Self::create_child_request(pending), patience)
                }
                Task::Mobike(task) => {
                    let policy = task.patience().unwrap_or(patience);
                    let request;
                    (path, request) = self.mobike_request(task, rng);
                    (ExchangeType::Informational, request, policy)
                }
                Task::Switch(notice) => {
                    (ExchangeType::Informational, self.switch_request(*notice), RetransmitPolicy::SWITCH)
                }
                Task::Size(octets) => {
                    let filler = self.size_request(*octets);
                    (ExchangeType::Informational, vec![filler], self.size_policy())
                }
                Task::RekeyIke(pending) => (ExchangeType::CreateChildSa, pending.request(), patience),
            };
            let header = self.request_header(exchange);
            // A question about a size goes whole.
            let fragment = self.features.fragmentation && !matches!(task, Task::Size(_));
            let Ok(datagrams) = self.protection.seal(header, &payloads, fragment, path, rng) else {
                tracing::warn!(%exchange, "a request could not be sealed and is dropped");
                continue;
            };
            self.transmits.extend(datagrams.iter().cloned().map(|message| Transmit { path, message }));
            let mut outstanding = Outstanding::new(now, self.next_request, datagrams, policy);
            if matches!(task, Task::Size(_)) {
                outstanding = self.with_small_form(header, outstanding, rng);
            }
            if matches!(task, Task::DeleteIke) {
                self.bound_farewell(now, &mut outstanding);
            }
            self.next_request = self.next_request.saturating_add(1);
            self.in_flight = Some(InFlight { outstanding, task, path, rerouted: false });
        }
    }

    pub(super) fn handle_response(
        &mut self,
        now: Instant,
        path: Path,
        header: Header,
        opened: Opened,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        let Some(InFlight { task, path: last, rerouted, outstanding }) = self.in_flight.take() else {
            return Ok(());
        };
        self.probe_answered(now, &outstanding, rerouted, path);
        self.size_answered(now, &task, &outstanding, (last, rerouted));
        let travelled = Travelled { path: last, rerouted, answer: path };
        let outcome = match opened.payloads() {
            Ok(payloads) => {
                if header.exchange == ExchangeType::Informational {
                    self.take_token(&payloads);
                }
                self.finish_task(now, task, travelled, header.exchange, &payloads, rng)
            }
            Err(wire) => Err(wire.into()),
        };
        // An authenticated answer that cannot be read leaves the two ends with different ideas of what exists.
        if let Err(PeerMisbehaved::Wire(wire)) = outcome {
            self.finish(CloseReason::Fatal(wire.answer().0));
            return Err(wire.into());
        }
        if !self.closed {
            self.start_next(now, rng);
        }
        outcome
    }

    fn finish_task(
        &mut self,
        now: Instant,
        task: Task,
        travelled: Travelled,
        exchange: ExchangeType,
        payloads: &[Payload],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), PeerMisbehaved> {
        match task {
            Task::Liveness => {
                self.fatal_notify(payloads)?;
                self.liveness_answered();
                self.compare_mapping(payloads);
                self.take_report(payloads);
                Ok(())
            }
            Task::Mobike(task) => {
                self.finish_mobike(task, travelled, payloads)?;
                if std::mem::take(&mut self.mobility.moved) {
                    self.renew_after_move(rng);
                }
                Ok(())
            }
            Task::DeleteChildren(spis) => {
                self.fatal_notify(payloads)?;
                for spi_in in spis {
                    self.remove_child(now, spi_in);
                }
                Ok(())
            }
            Task::DeleteIke => {
                self.finish(self.renewal.farewell());
                Ok(())
            }
            Task::Inform(_) | Task::Size(_) => self.fatal_notify(payloads),
            Task::Switch(notice) => self.finish_switch(notice, payloads),
            Task::CreateChild(_) | Task::RekeyIke(_) if exchange != ExchangeType::CreateChildSa => {
                Err(PeerMisbehaved::WrongExchange { exchange })
            }
            Task::CreateChild(pending) => self.finish_create_child(now, *pending, payloads, rng),
            Task::RekeyIke(pending) => self.finish_rekey_ike(now, *pending, payloads, rng),
        }
    }
}
