//! What others wrote: a watch from a version on, which goes on where it was left, and starts anew where the API has forgotten.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{WatchEvent, WatchParams};
use tokio::time::Instant;

use super::KubernetesJournal;
use super::head::Head;
use super::objects::{Kind, parts, state};
use crate::cluster::{ClusterError, WATCH_SECONDS_MAX};
use crate::domain::ids::Name;
use crate::journal::{Changed, Changes, Cursor, JournalError};

const FOLLOWED: [Kind; 3] = [Kind::Head, Kind::Credential, Kind::Launch];
/// After the first change, for how long others are waited for: one answer for a burst.
const BURST: Duration = Duration::from_millis(20);
/// How many credentials are told at once.
const TOLD_MAX: usize = 1_000;
/// Before a watch is begun again that ended, or couldn't be begun.
const PAUSE: Duration = Duration::from_millis(200);

/// What a cursor means here.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// A version of the whole kind.
    version: String,
    /// How many changes of settings the head had told.
    told: u64,
}

impl Place {
    fn of(cursor: &Cursor) -> Option<Place> {
        let (version, told) = cursor.mark()?.split_once('/')?;
        Some(Place { version: version.to_owned(), told: told.parse().ok()? })
    }

    fn cursor(&self) -> Cursor {
        Cursor::at(format!("{}/{}", self.version, self.told))
    }
}

/// What came so far.
struct News {
    place: Place,
    credentials: BTreeSet<Name>,
    general: bool,
}

impl News {
    fn is_none(&self) -> bool {
        self.credentials.is_empty() && !self.general
    }

    fn told(self) -> Changes {
        Changes { cursor: self.place.cursor(), changed: Changed::These { credentials: self.credentials, general: self.general } }
    }
}

/// How a watch came to its end.
enum End {
    /// The time is over, or there is enough to tell.
    Enough,
    /// It can be begun again where it was left.
    Broken,
    /// What came in between is forgotten.
    Gone,
}

impl KubernetesJournal {
    pub(super) async fn follow(&self, since: &Cursor, wait: Duration) -> Result<Changes, JournalError> {
        let until = Instant::now() + wait;
        let Some(place) = Place::of(since) else { return self.everything_up_to_now().await };
        let mut news = News { place, credentials: BTreeSet::new(), general: false };
        loop {
            match self.watch(&mut news, until).await? {
                End::Gone => return self.everything_up_to_now().await,
                End::Enough => return Ok(news.told()),
                End::Broken if !news.is_none() || Instant::now() + PAUSE >= until => return Ok(news.told()),
                End::Broken => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Everything counts as changed; what changes after now is told from here on.
    async fn everything_up_to_now(&self) -> Result<Changes, JournalError> {
        let (_, version) = self.objects.any(&self.naming.selector(&FOLLOWED)).await?;
        let told = self.head().await?.map(|(head, _)| head.told).unwrap_or_default();
        Ok(Changes::everything(Place { version, told }.cursor()))
    }

    async fn watch(&self, news: &mut News, until: Instant) -> Result<End, JournalError> {
        let left = until.saturating_duration_since(Instant::now());
        let seconds = u32::try_from(left.as_secs()).unwrap_or(u32::MAX).clamp(1, WATCH_SECONDS_MAX);
        let params = WatchParams::default().labels(&self.naming.selector(&FOLLOWED)).timeout(seconds);
        let begun = self.objects.watching.watch(&params, &news.place.version);
        let begun = match tokio::time::timeout_at(until, self.objects.cluster.call(begun)).await {
            Ok(begun) => begun,
            Err(_) => return Ok(End::Enough),
        };
        let mut events = match begun {
            Ok(events) => pin!(events),
            Err(ClusterError::Gone) => return Ok(End::Gone),
            Err(error) => return Err(error.into()),
        };
        let mut until = until;
        loop {
            let event = match tokio::time::timeout_at(until, events.next()).await {
                Err(_) => return Ok(End::Enough),
                Ok(None) => return Ok(End::Broken),
                Ok(Some(event)) => event.map_err(ClusterError::from),
            };
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) => self.note(news, &object),
                Ok(WatchEvent::Bookmark(mark)) => news.place.version = mark.metadata.resource_version,
                Ok(WatchEvent::Error(status)) if ClusterError::of_status(&status) == ClusterError::Gone => return Ok(End::Gone),
                Ok(WatchEvent::Error(_)) | Err(_) => return Ok(End::Broken),
            }
            if news.credentials.len() >= TOLD_MAX {
                return Ok(End::Enough);
            }
            if !news.is_none() {
                until = until.min(Instant::now() + BURST);
            }
        }
    }

    /// What can't be read is told, too: who loads it then finds out what is wrong.
    fn note(&self, news: &mut News, object: &ConfigMap) {
        if let Some(version) = &object.metadata.resource_version {
            news.place.version.clone_from(version);
        }
        match Kind::of(object) {
            Some(Kind::Credential) => news.credentials.extend(self.naming.named(object, Kind::Credential)),
            Some(Kind::Launch) => news.general = true,
            Some(Kind::Head) => {
                let told = parts(&self.keyring, object).and_then(|parts| state::<Head>(&parts)).map(|head| head.told);
                news.general |= told.as_ref() != Ok(&news.place.told);
                news.place.told = told.unwrap_or(news.place.told);
            }
            Some(Kind::Dispatch | Kind::Holdings) | None => {}
        }
    }
}
