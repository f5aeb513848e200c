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

use std::path::Path;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Cargo, Courier, CourierError, Outcome, Progress, Withdrawn};
use crate::domain::delivery::{FileDelivery, Way};
use crate::domain::dispatch::Place;
use crate::domain::ids::Name;
use folder::{Ids, Target};
use tree::Tree;

/// In the name of a folder with nothing in it, which stands where nothing is asked for any more: as of no particular time.
const EMPTIED: &str = "..2000_01_01_00_00_00";

/// Writes files on the daemon's machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileCourier;

/// Off the async threads: a disk can be slow.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, CourierError> + Send + 'static) -> Result<T, CourierError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CourierError::Unavailable("writing the files broke"))?
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
        let now = cargo.now;
        let outcome = on_disk(move || bring(&asked, &tree, now)).await?;
        Ok(Progress { outcome, left: 0 })
    }

    /// Takes the files away. No process is signalled: there is nothing new for it to read.
    async fn withdraw(&self, _application: &Name, place: &Place) -> Result<Withdrawn, CourierError> {
        let Place::Folder { directory, mode, owner, group, .. } = place.clone() else { return Ok(Withdrawn::NotOurs) };
        on_disk(move || empty(&directory, Ids::of(owner, group), mode)).await?;
        Ok(Withdrawn::Emptied)
    }

    async fn look_at(&self, _application: &Name, place: &Place) -> Result<(), CourierError> {
        let Place::Folder { directory, mode, owner, group, .. } = place.clone() else { return Ok(()) };
        on_disk(move || Target::open(&directory, Ids::of(owner, group), mode).map(drop)).await
    }
}

const AWAY: CourierError = CourierError::Unavailable("the folder that it is in is gone, or isn't mounted");

fn empty(directory: &Path, ids: Ids, mode: u32) -> Result<(), CourierError> {
    // A folder that is gone isn't made anew for that.
    if is_gone(directory) {
        return if directory.parent().is_some_and(is_gone) { Err(AWAY) } else { Ok(()) };
    }
    let target = Target::open(directory, ids, mode)?;
    // Whoever was stopped before it became the current one left a folder with values.
    let Some(current) = target.current()? else { return target.clean(None) };
    let nothing = Tree::of(std::iter::empty());
    let folder = if target.has(&current, &nothing)? { current } else { target.replace(&nothing, EMPTIED)? };
    target.clean(Some(&folder))
}

fn is_gone(directory: &Path) -> bool {
    directory.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn bring(asked: &FileDelivery, tree: &Tree, now: Timestamp) -> Result<Outcome, CourierError> {
    let ids = Ids::of(asked.owner, asked.group);
    let target = Target::open(&asked.directory, ids, asked.mode)?;
    let current = target.current()?;
    if current.is_none() && tree.entries.is_empty() {
        // Nothing was submitted yet: an empty folder is no news for anybody.
        return Ok(Outcome::Unchanged);
    }
    let mut outcome = Outcome::Unchanged;
    let folder = match current {
        Some(current) if target.has(&current, tree)? => current,
        _ => {
            outcome = Outcome::Delivered;
            target.replace(tree, &now.strftime("..%Y_%m_%d_%H_%M_%S").to_string())?
        }
    };
    target.clean(Some(&folder))?;
    if let Some(signal) = &asked.signal
        && !target.is_signalled(&folder)?
    {
        signal::send(signal, ids, now)?;
        target.note_signalled(&folder)?;
        outcome = Outcome::Delivered;
    }
    Ok(outcome)
}
