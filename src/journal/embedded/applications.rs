//! What is kept of each application: what was signed off of its going-live list and is live, and its deliveries.

use redb::{ReadableTable, Table};
use serde::de::DeserializeOwned;

use super::EmbeddedJournal;
use crate::domain::delivery::Way;
use crate::domain::dispatch::{Dispatch, Place};
use crate::domain::ids::Name;
use crate::domain::launch::Launch;
use crate::embedded::rows::{At, Broken, META, decode, encode};
use crate::journal::JournalError;
use crate::sealing::Keyring;

/// With the application as its second word.
const LAUNCH: &str = "launch";
/// With the application and the way.
const DISPATCH: &str = "dispatch";

pub(super) fn launch_row(application: &Name) -> At<'_> {
    (LAUNCH, application.as_str(), "")
}

pub(super) fn dispatch_row(application: &Name, way: Way) -> At<'_> {
    (DISPATCH, application.as_str(), way.as_str())
}

type Found<T> = Vec<((Name, String), T)>;

/// All rows of a kind, with the second and the third word.
fn rows<T: DeserializeOwned>(
    table: &impl ReadableTable<(&'static str, &'static str, &'static str), &'static [u8]>,
    keyring: &Keyring,
    kind: &str,
) -> Result<Found<T>, Broken> {
    let each = table.range((kind, "", "")..(kind, "~", ""))?.map(|row| {
        let (at, row) = row?;
        let (_, application, more) = at.value();
        let application = application.parse().map_err(|_| Broken::Row("a name was altered"))?;
        Ok(((application, more.to_owned()), decode(keyring, META, at.value(), row.value())?))
    });
    each.collect()
}

fn way_of(text: &str) -> Result<Way, Broken> {
    Way::ALL.into_iter().find(|way| way.as_str() == text).ok_or(Broken::Row("a name was altered"))
}

impl EmbeddedJournal {
    pub(super) async fn read_launches(&self) -> Result<Vec<(Name, Launch)>, JournalError> {
        let read = self.embedded.read(|transaction, keyring| {
            let found: Found<Launch> = rows(&transaction.open_table(META)?, keyring, LAUNCH)?;
            Ok(found.into_iter().map(|((application, _), launch)| (application, launch)).collect())
        });
        Ok(read.await?)
    }

    pub(super) async fn read_dispatches(&self) -> Result<Vec<((Name, Way), Dispatch)>, JournalError> {
        let read = self.embedded.read(|transaction, keyring| {
            let found: Found<Dispatch> = rows(&transaction.open_table(META)?, keyring, DISPATCH)?;
            let each = found.into_iter().map(|((application, way), dispatch)| Ok(((application, way_of(&way)?), dispatch)));
            each.collect::<Result<Vec<_>, Broken>>()
        });
        Ok(read.await?)
    }
}

/// In what came back from a backup: folders are on the machine that it was made on, and may be those of a copy that lives on. Those that
/// are asked for are on record again before anything is brought there.
pub(super) fn forget_folders(
    meta: &mut Table<'_, (&'static str, &'static str, &'static str), &'static [u8]>,
    keyring: &Keyring,
) -> Result<(), Broken> {
    let found: Found<Dispatch> = rows(meta, keyring, DISPATCH)?;
    for ((application, way), mut dispatch) in found {
        dispatch.places.retain(|placed| !matches!(placed.place, Place::Folder { .. }));
        let at = dispatch_row(&application, way_of(&way)?);
        meta.insert(at, encode(keyring, META, at, &dispatch)?.as_slice())?;
    }
    Ok(())
}
