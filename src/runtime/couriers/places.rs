//! Where values lie: on record before they are brought there, and taken away where nobody asks for them any more.

use super::{Round, Route, wall_now};
use crate::delivery::{CourierError, Remark, Withdrawn};
use crate::domain::dispatch::{Dispatch, Fate, Place, Placed};
use crate::journal::JournalError;

impl Route {
    /// What is on record, and the term in which that is so.
    ///
    /// # Errors
    /// How the round ends.
    async fn dispatch(&mut self) -> Result<(u64, Dispatch), Round> {
        match self.engine.dispatch(&self.application, self.courier.way()).await {
            Ok(known) => Ok(known),
            Err(error) => Err(self.unkept(&error).await),
        }
    }

    async fn keep(&mut self, term: u64, dispatch: Dispatch) -> Result<(), Round> {
        match self.engine.keep_dispatch(&self.application, self.courier.way(), term, dispatch).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.unkept(&error).await),
        }
    }

    async fn unkept(&mut self, error: &JournalError) -> Round {
        const UNKEPT: &str = "where it went before can't be read or kept in the journal";
        let is_asked = self.engine.recipient(&self.application, self.courier.way()).is_some();
        match error {
            JournalError::Deposed => Round::Elsewhere,
            _ if is_asked => self.failed(UNKEPT, Vec::new(), None).await,
            _ => self.left(UNKEPT.to_owned()),
        }
    }

    /// The courier's own words about what it couldn't do.
    pub(super) async fn words_for(&self, error: CourierError) -> Remark {
        let remark = self.courier.remark(&self.application).await;
        remark.unwrap_or_else(|| Remark { text: error.to_string(), stragglers: Vec::new() })
    }

    /// On record before anything lies there. What can't be reached isn't written down: nothing of ours would be there to be taken away.
    ///
    /// # Errors
    /// How the round ends.
    pub(super) async fn will_lie_at(&mut self, place: &Place) -> Result<(), Round> {
        let (term, known) = self.dispatch().await?;
        let Some(more) = known.with_place(place) else { return Ok(()) };
        if !known.has(place)
            && let Err(error) = self.courier.look_at(&self.application, place).await
        {
            let remark = self.words_for(error).await;
            return Err(self.failed(&remark.text, remark.stragglers, error.retry_after()).await);
        }
        self.keep(term, more).await
    }

    /// Takes values away from where they aren't asked for any more. Whether something stays there for now.
    ///
    /// # Errors
    /// How the round ends, where something couldn't be taken away.
    pub(super) async fn clear(&mut self) -> Result<bool, Round> {
        let (way, now) = (self.courier.way(), wall_now());
        let (term, mut known) = self.dispatch().await?;
        let asked = self.engine.asked_place(&self.application, way);
        if let Some(marked) = known.with_unasked(asked.as_ref(), self.engine.replica(), now) {
            self.keep(term, marked.clone()).await?;
            known = marked;
        }
        let (mut stays, mut left) = (known.is_elsewhere_too(self.engine.replica()), None);
        for placed in known.places.iter().filter(|placed| placed.unasked_since.is_some()) {
            // Whoever led meanwhile may have filled it.
            if self.dispatch().await?.0 != term {
                return Err(Round::Elsewhere);
            }
            let emptied = match self.engine.fate_of(&self.application, way, placed, now) {
                Fate::Stays => {
                    stays = true;
                    continue;
                }
                Fate::IsAnothers => Ok(()),
                // Not at the first try of a process: what is in its way may be passing.
                Fate::IsEmptied { at_last } => self.empty(placed, at_last && self.was_left).await,
            };
            let (_, known) = self.dispatch().await?;
            match emptied {
                Ok(()) => self.keep(term, known.without_place(&placed.place)).await?,
                Err(reason) => {
                    if let Some(marked) = known.with_failure(&placed.place, now) {
                        self.keep(term, marked).await?;
                    }
                    left = Some(reason);
                }
            }
        }
        match left {
            Some(reason) => Err(self.left(reason)),
            None => {
                self.was_left = false;
                Ok(stays)
            }
        }
    }

    /// # Errors
    /// Why it can't be emptied now; not where it is given up.
    async fn empty(&self, placed: &Placed, at_last: bool) -> Result<(), String> {
        let (application, kind) = (self.application.as_str(), self.courier.way().as_str());
        match self.courier.withdraw(&self.application, &placed.place).await {
            Ok(Withdrawn::Emptied) => tracing::info!(application, kind, "what nobody asks for was taken away"),
            Ok(Withdrawn::NotOurs) => tracing::warn!(application, kind, "what lies where nobody asks for it isn't ours by now, and stays"),
            Err(error) => {
                let reason = self.words_for(error).await.text;
                if !at_last {
                    return Err(reason);
                }
                tracing::error!(application, kind, reason, "what nobody asks for couldn't be taken away for so long that it is given up");
            }
        }
        Ok(())
    }

    fn left(&mut self, reason: String) -> Round {
        let way = self.courier.way();
        self.metrics.delivery_ended(way.as_str(), "failed");
        if !std::mem::replace(&mut self.was_left, true) {
            let application = self.application.as_str();
            tracing::warn!(application, kind = way.as_str(), reason, "what nobody asks for couldn't be taken away; it is tried again");
        }
        self.engine.note_left(&self.application, way, Some(reason));
        Round::Left
    }

    /// Nobody asks for this way any more.
    pub(super) async fn end(&mut self) -> Round {
        self.delivered = None;
        match self.clear().await {
            Err(round) => round,
            Ok(stays) => {
                self.engine.note_left(&self.application, self.courier.way(), None);
                if stays { Round::Kept } else { Round::Unasked }
            }
        }
    }
}
