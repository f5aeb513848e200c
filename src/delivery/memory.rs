//! Deliveries that only remember: for tests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Cargo, Change, Courier, CourierError, Delivery, Outboxes, Outcome, Progress, Withdrawn};
use crate::domain::delivery::Way;
use crate::domain::dispatch::Place;
use crate::domain::ids::{Name, VersionId};
use crate::domain::outbox::{DeadLetter, Outbox};

/// Keeps all announcements in their order.
#[derive(Debug, Default)]
pub struct MemoryDelivery {
    announced: Mutex<Vec<Change>>,
}

impl MemoryDelivery {
    pub fn new() -> MemoryDelivery {
        MemoryDelivery::default()
    }

    /// What was announced since the last call.
    pub fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.announced.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Delivery for MemoryDelivery {
    fn announce(&self, change: Change) {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }
}

/// What a target has: the version and revision of each credential.
pub type Delivered = BTreeMap<Name, (VersionId, u64)>;

/// A courier whose targets are in memory. Faults are given to it one by one.
#[derive(Debug)]
pub struct MemoryCourier {
    way: Way,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    targets: BTreeMap<Name, Delivered>,
    faults: VecDeque<CourierError>,
    give_up: Option<&'static str>,
    dead: BTreeMap<Name, Vec<DeadLetter>>,
    calls: usize,
    deliveries: usize,
    refuses_withdrawal: Option<CourierError>,
    unreachable: Option<CourierError>,
    withdrawn: Vec<Place>,
}

impl MemoryCourier {
    pub fn new(way: Way) -> MemoryCourier {
        MemoryCourier { way, state: Mutex::default() }
    }

    /// What the next calls answer, in place of working.
    pub fn fail(&self, faults: impl IntoIterator<Item = CourierError>) {
        self.state().faults.extend(faults);
    }

    /// From now on it works.
    pub fn mend(&self) {
        self.state().faults.clear();
    }

    /// The next call gives the state up.
    pub fn give_up(&self, reason: &'static str) {
        self.state().give_up = Some(reason);
    }

    /// From now on nothing can be taken away; `None`: it can.
    pub fn refuse_withdrawal(&self, fault: Option<CourierError>) {
        self.state().refuses_withdrawal = fault;
    }

    /// From now on no new place can be reached; `None`: each can.
    pub fn hide_places(&self, fault: Option<CourierError>) {
        self.state().unreachable = fault;
    }

    /// Where what was there was taken away, in order.
    pub fn withdrawn(&self) -> Vec<Place> {
        self.state().withdrawn.clone()
    }

    /// What the application's target has.
    pub fn target(&self, application: &Name) -> Delivered {
        self.state().targets.get(application).cloned().unwrap_or_default()
    }

    /// How often it was called, and how often it changed a target.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.calls, state.deliveries)
    }

    // A panic while it was held leaves whole entries: each change is one insertion.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Courier for MemoryCourier {
    fn way(&self) -> Way {
        self.way
    }

    async fn deliver(&self, cargo: &Cargo<'_>) -> Result<Progress, CourierError> {
        let mut state = self.state();
        state.calls += 1;
        if let Some(fault) = state.faults.pop_front() {
            return Err(fault);
        }
        let application = &cargo.application.name;
        if let Some(reason) = state.give_up.take() {
            let letters = cargo.parcels.iter().map(|parcel| DeadLetter {
                id: format!("{application}-{}-{}", parcel.credential, parcel.revision),
                credential: parcel.credential.clone(),
                version: parcel.version.clone(),
                revision: parcel.revision,
                given_up_at: cargo.now,
                reason: reason.to_owned(),
            });
            let letters = letters.collect();
            state.dead.insert(application.clone(), letters);
            return Ok(Progress { outcome: Outcome::GivenUp(reason), left: 0 });
        }
        let wanted: Delivered =
            cargo.parcels.iter().map(|parcel| (parcel.credential.clone(), (parcel.version.clone(), parcel.revision))).collect();
        let target = state.targets.entry(application.clone()).or_default();
        if *target == wanted {
            return Ok(Progress { outcome: Outcome::Unchanged, left: 0 });
        }
        *target = wanted;
        state.deliveries += 1;
        state.dead.remove(application);
        Ok(Progress { outcome: Outcome::Delivered, left: 0 })
    }

    async fn look_at(&self, _application: &Name, _place: &Place) -> Result<(), CourierError> {
        self.state().unreachable.map_or(Ok(()), Err)
    }

    async fn withdraw(&self, _application: &Name, place: &Place) -> Result<Withdrawn, CourierError> {
        let mut state = self.state();
        if let Some(fault) = state.refuses_withdrawal {
            return Err(fault);
        }
        state.withdrawn.push(place.clone());
        Ok(Withdrawn::Emptied)
    }

    async fn dead_letters(&self, application: &Name) -> Vec<DeadLetter> {
        self.state().dead.get(application).cloned().unwrap_or_default()
    }
}

/// Outboxes that its copies share, as processes share a journal.
#[derive(Debug, Clone, Default)]
pub struct MemoryOutboxes(Arc<Mutex<Outbound>>);

#[derive(Debug, Default)]
struct Outbound {
    outboxes: BTreeMap<Name, Outbox>,
    /// After so many writings one fails, without an effect.
    fault: Option<(usize, CourierError)>,
}

impl MemoryOutboxes {
    fn state(&self) -> MutexGuard<'_, Outbound> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After so many writings from now on, one fails.
    pub fn fail_after(&self, writings: usize, fault: CourierError) {
        self.state().fault = Some((writings, fault));
    }
}

#[async_trait]
impl Outboxes for MemoryOutboxes {
    async fn outbox(&self, application: &Name) -> Result<(u64, Outbox), CourierError> {
        Ok((1, self.state().outboxes.get(application).cloned().unwrap_or_default()))
    }

    async fn keep(&self, application: &Name, _term: u64, outbox: &Outbox) -> Result<(), CourierError> {
        let mut state = self.state();
        state.fault = match state.fault.take() {
            Some((0, fault)) => return Err(fault),
            later => later.map(|(writings, fault)| (writings - 1, fault)),
        };
        state.outboxes.insert(application.clone(), outbox.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{contract, courier_contract};

    #[test]
    fn delivery_memory_keeps_the_contract() {
        let memory = MemoryDelivery::new();
        contract::check(&memory);
        assert_eq!(memory.take().len(), contract::ANNOUNCED);
        assert!(memory.take().is_empty());
    }

    #[derive(Debug)]
    struct InMemory(MemoryCourier);

    #[async_trait]
    impl courier_contract::Stage for InMemory {
        fn courier(&self) -> &dyn Courier {
            &self.0
        }

        fn again(&mut self) {
            // Its memory is all it has: a restart keeps it.
        }

        fn break_target(&self) {
            self.0.fail([CourierError::Unavailable("away"); 3]);
        }

        fn mend_target(&self) {
            self.0.mend();
        }

        async fn has(&self) -> Option<Delivered> {
            Some(self.0.target(&courier_contract::application().name))
        }
    }

    #[tokio::test]
    async fn delivery_memory_courier_keeps_the_contract() {
        for way in Way::ALL {
            courier_contract::check(InMemory(MemoryCourier::new(way))).await;
        }
    }

    #[tokio::test]
    async fn delivery_memory_courier_fails_where_it_is_told_to() {
        let courier = MemoryCourier::new(Way::Webhook);
        let application = courier_contract::application();
        let cargo = courier_contract::cargo(&application, Way::Webhook, &[("key", 1)]);
        courier.fail([CourierError::Later { why: "busy", wait: std::time::Duration::from_secs(3) }]);
        let refused = courier.deliver(&cargo).await.unwrap_err();
        assert_eq!((refused.retry_after().map(|wait| wait.as_secs()), refused.to_string()), (Some(3), "busy".to_owned()));
        courier.give_up("too-late");
        assert_eq!(courier.deliver(&cargo).await, Ok(Progress { outcome: Outcome::GivenUp("too-late"), left: 0 }));
        assert_eq!(courier.dead_letters(&application.name).await.len(), 1);
        assert_eq!(courier.deliver(&cargo).await, Ok(Progress { outcome: Outcome::Delivered, left: 0 }));
        assert!(courier.dead_letters(&application.name).await.is_empty());
        assert_eq!(courier.counts(), (3, 1));
    }
}
