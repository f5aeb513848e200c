//! A delivery that only remembers what was announced: for tests.

use std::sync::{Mutex, PoisonError};

use super::{Change, Delivery};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::contract;

    #[test]
    fn delivery_memory_keeps_the_contract() {
        let memory = MemoryDelivery::new();
        contract::check(&memory);
        assert_eq!(memory.take().len(), contract::ANNOUNCED);
        assert!(memory.take().is_empty());
    }
}
