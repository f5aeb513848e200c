//! Delivery as a folder of files, replaced as a whole, as Kubernetes replaces the files of a mounted Secret.
//!
//! ```text
//! DIRECTORY/..data -> ..2026_11_22_03_00_00.5f0c2a91     swapped by one rename
//! DIRECTORY/dinie-production.json -> ..data/dinie-production.json      the document, as GET /v1/credentials/{name} has it, without `stale`
//! DIRECTORY/dinie-production -> ..data/dinie-production                a folder: one file per field, its value and nothing else
//! DIRECTORY/..signalled -> ..2026_11_22_03_00_00.5f0c2a91  what the process was last signalled for
//! ```
//!
//! What was delivered is known from the target itself: files are compared byte by byte, with their mode and owner, so a restart with
//! nothing changed writes nothing and signals nobody, and what somebody changed there is put right.

mod folder;
mod signal;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

use async_trait::async_trait;

use super::{Cargo, Courier, CourierError, Outcome, Progress};
use crate::domain::delivery::{FileDelivery, Way};
use folder::{Ids, Target};
use tree::Tree;

/// Writes files on the daemon's machine.
#[derive(Debug, Default)]
pub struct FileCourier(());

impl FileCourier {
    pub fn new() -> FileCourier {
        FileCourier::default()
    }
}

#[async_trait]
impl Courier for FileCourier {
    fn way(&self) -> Way {
        Way::File
    }

    async fn deliver(&self, cargo: &Cargo<'_>) -> Result<Progress, CourierError> {
        let asked = cargo.application.delivery.file.clone();
        let asked = asked.ok_or(CourierError::Refused("the document of the application asks for no files"))?;
        let documents = cargo.parcels.iter().filter_map(|parcel| parcel.document.as_ref());
        let tree = Tree::of(documents);
        let stamp = cargo.now.strftime("..%Y_%m_%d_%H_%M_%S").to_string();
        // Off the async threads: a disk can be slow.
        let work = tokio::task::spawn_blocking(move || bring(&asked, &tree, &stamp));
        let outcome = work.await.map_err(|_| CourierError::Unavailable("writing the files broke"))??;
        Ok(Progress { outcome, left: 0 })
    }
}

fn bring(asked: &FileDelivery, tree: &Tree, stamp: &str) -> Result<Outcome, CourierError> {
    let ids = Ids::of(asked);
    let target = Target::open(&asked.directory, ids, asked.mode)?;
    let current = target.current()?;
    let mut outcome = Outcome::Unchanged;
    let folder = match current {
        Some(current) if target.has(&current, tree)? => current,
        _ => {
            outcome = Outcome::Delivered;
            target.replace(tree, stamp)?
        }
    };
    target.clean(&folder)?;
    if let Some(signal) = &asked.signal
        && !target.is_signalled(&folder)?
    {
        signal::send(signal, ids)?;
        target.note_signalled(&folder)?;
        outcome = Outcome::Delivered;
    }
    Ok(outcome)
}
