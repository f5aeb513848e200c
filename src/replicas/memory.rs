//! The rows as a fake: in memory, shared by its copies, with a fault point at every write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Kept, Leaf, Mark, Place, Rows, RowsError};
use crate::domain::ids::Name;
use crate::faults::{Fault, Faults};

#[derive(Debug, Default)]
struct State {
    writes: u64,
    leaves: BTreeMap<Place, (Mark, Leaf)>,
    is_away: bool,
}

/// Loses everything with its last copy.
#[derive(Debug, Clone, Default)]
pub struct MemoryRows {
    state: Arc<Mutex<State>>,
    faults: Faults,
}

impl From<Fault> for RowsError {
    fn from(_: Fault) -> RowsError {
        RowsError::Unavailable(Fault::REASON)
    }
}

impl MemoryRows {
    /// The same rows, with a fault point at every write.
    #[must_use]
    pub fn faulty(&self, faults: &Faults) -> MemoryRows {
        MemoryRows { state: Arc::clone(&self.state), faults: faults.clone() }
    }

    /// Nobody reaches them until they are back.
    pub fn set_away(&self, away: bool) {
        self.state().is_away = away;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn here(&self) -> Result<MutexGuard<'_, State>, RowsError> {
        self.faults.alive()?;
        let state = self.state();
        if state.is_away { Err(RowsError::Unavailable("away")) } else { Ok(state) }
    }

    fn read(&self, wanted: impl Fn(&Place) -> bool) -> Result<Vec<Kept>, RowsError> {
        let state = self.here()?;
        let wanted = state.leaves.iter().filter(|(place, _)| wanted(place));
        Ok(wanted.map(|(place, (mark, leaf))| Kept { place: place.clone(), mark: mark.clone(), leaf: leaf.clone() }).collect())
    }
}

#[async_trait]
impl Rows for MemoryRows {
    async fn all(&self) -> Result<Vec<Kept>, RowsError> {
        self.read(|_| true)
    }

    async fn of(&self, replica: &Name) -> Result<Vec<Kept>, RowsError> {
        self.read(|place| place.replica == *replica)
    }

    async fn write(&self, place: &Place, leaf: &Leaf, expected: Option<&Mark>) -> Result<Mark, RowsError> {
        // As a call over a network does, it lets others have their turn.
        tokio::task::yield_now().await;
        let point = self.faults.point("rows.write");
        point.before()?;
        let mark = {
            let mut state = self.here()?;
            if state.leaves.get(place).map(|(mark, _)| mark) != expected {
                return Err(RowsError::Conflict);
            }
            state.writes += 1;
            let mark = Mark(state.writes.to_string());
            state.leaves.insert(place.clone(), (mark.clone(), leaf.clone()));
            mark
        };
        point.after()?;
        Ok(mark)
    }

    async fn remove(&self, place: &Place, expected: &Mark) -> Result<(), RowsError> {
        let point = self.faults.point("rows.remove");
        point.before()?;
        {
            let mut state = self.here()?;
            if state.leaves.get(place).is_none_or(|(mark, _)| mark != expected) {
                return Err(RowsError::Conflict);
            }
            state.leaves.remove(place);
        }
        point.after()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::When;
    use crate::replicas::contract::{a_head, contract, place};

    #[tokio::test]
    async fn rows_in_memory_keep_the_contract() {
        contract(|| {
            let rows = MemoryRows::default();
            (rows.clone(), rows)
        })
        .await;
    }

    #[tokio::test]
    async fn they_fail_where_they_are_told_to() {
        let faults = Faults::default();
        let rows = MemoryRows::default().faulty(&faults);
        let (place, leaf) = (place("a"), a_head(1));
        faults.arm(0, When::After);
        assert_eq!(rows.write(&place, &leaf, None).await, Err(RowsError::Unavailable(Fault::REASON)));
        assert_eq!(rows.write(&place, &leaf, None).await, Err(RowsError::Conflict), "it took effect");
        rows.set_away(true);
        assert!(rows.all().await.is_err());
        rows.set_away(false);
        assert_eq!(rows.all().await.unwrap().len(), 1);
    }
}
