//! What a delivery brought is in use everywhere: the copies of the application that are fed by it hold nothing older any more.

use super::Engine;
use super::audit::Actor;
use super::errors::ConfirmError;
use crate::domain::delivery::Way;
use crate::domain::ids::{Name, VersionId};

impl Engine {
    /// Every copy of the application that this way feeds runs with these versions, and with no older ones: whoever calls has seen
    /// that. Counts as a confirmation of the way's own instance, and is recorded as the daemon's. Repeating it is fine.
    ///
    /// A version that isn't the newest that was brought confirms nothing: the newer one has to be taken up first.
    ///
    /// # Errors
    /// [`ConfirmError`]; what was counted before it stays so.
    pub async fn taken_up(&self, application: &Name, way: Way, versions: &[(Name, VersionId)]) -> Result<(), ConfirmError> {
        let instance = way.instance();
        for (credential, version) in versions {
            let Some(holding) = self.book.holding(application, &instance, credential) else { continue };
            let is_counted = holding.confirmed.as_ref() == Some(version) && holding.held.len() == 1;
            if is_counted || holding.newest != *version {
                continue;
            }
            let detail = format!("by {application}/{instance}: all copies of the application run with it");
            match self.count(Actor::Daemon, holding, version, Some(detail)).await {
                // A newer one was brought meanwhile: that one's turn comes.
                Ok(()) | Err(ConfirmError::NotNewest) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
