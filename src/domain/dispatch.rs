//! What of a delivery outlives the process that carried it: where values lie, and which messages are under way.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::delivery::{Deliveries, FileDelivery, KubernetesDelivery, Way};
use super::ids::{Name, ObjectName};
use super::outbox::Outbox;

/// Where values of an application were brought, with what it takes to take them away again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    Folder {
        /// The replica on whose machine it is; `None`: there is one daemon only.
        on: Option<Name>,
        directory: PathBuf,
        mode: u32,
        owner: Option<u32>,
        group: Option<u32>,
    },
    Secret {
        namespace: Name,
        secret: ObjectName,
    },
}

impl Place {
    /// Where a document wants values to be, as this replica brings them there; `None` where this way isn't asked for, or brings none.
    pub fn of(asked: &Deliveries, way: Way, replica: Option<&Name>) -> Option<Place> {
        match way {
            Way::File => asked.file.as_ref().map(|files| Place::of_files(files, replica)),
            Way::KubernetesSecret => asked.kubernetes.as_ref().map(Place::of_secret),
            Way::Webhook => None,
        }
    }

    fn of_files(asked: &FileDelivery, replica: Option<&Name>) -> Place {
        let FileDelivery { directory, mode, owner, group, signal: _ } = asked.clone();
        Place::Folder { on: replica.cloned(), directory, mode, owner, group }
    }

    fn of_secret(asked: &KubernetesDelivery) -> Place {
        Place::Secret { namespace: asked.namespace.clone(), secret: asked.secret.clone() }
    }

    /// Whether both are the same target, whatever mode and owner it has.
    pub fn is_at(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Folder { on, directory, .. }, Place::Folder { on: other_on, directory: another, .. }) => {
                (on, directory) == (other_on, another)
            }
            (Place::Secret { .. }, Place::Secret { .. }) => self == other,
            (Place::Folder { .. }, Place::Secret { .. }) | (Place::Secret { .. }, Place::Folder { .. }) => false,
        }
    }

    /// Whether this replica can get there.
    pub fn is_within_reach_of(&self, replica: Option<&Name>) -> bool {
        match self {
            Place::Folder { on, .. } => on.as_ref() == replica,
            Place::Secret { .. } => true,
        }
    }
}

/// A place, and since when nobody asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub place: Place,
    /// By the wall clock of who led then; `None`: it is asked for.
    pub unasked_since: Option<Timestamp>,
}

/// What is durable about the delivery to one application on one way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Where values may lie. Written before anything is brought there, and struck when it was emptied.
    pub places: Vec<Placed>,
    pub outbox: Outbox,
}

impl Dispatch {
    /// With this place as one that is asked for; `None` if it stands there so.
    pub fn with_place(&self, place: &Place) -> Option<Dispatch> {
        let placed = Placed { place: place.clone(), unasked_since: None };
        if self.places.contains(&placed) {
            return None;
        }
        let mut grown = self.without_place(place);
        grown.places.push(placed);
        Some(grown)
    }

    /// With the time at all places that aren't the one that is asked for, where there is none yet; `None` if that is so.
    pub fn with_unasked(&self, asked: Option<&Place>, now: Timestamp) -> Option<Dispatch> {
        let mut marked = self.clone();
        let former = marked.places.iter_mut().filter(|placed| asked.is_none_or(|asked| !placed.place.is_at(asked)));
        for placed in former {
            placed.unasked_since.get_or_insert(now);
        }
        (marked != *self).then_some(marked)
    }

    pub fn without_place(&self, place: &Place) -> Dispatch {
        let mut left = self.clone();
        left.places.retain(|placed| !placed.place.is_at(place));
        left
    }

    pub fn has(&self, place: &Place) -> bool {
        self.places.iter().any(|placed| placed.place.is_at(place))
    }
}

/// What becomes of a place that nobody asked for at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing is done now, and nothing forgotten.
    Stays,
    /// It is another's by now, who brings its own there over what is there.
    IsAnothers,
    IsEmptied {
        /// It couldn't be, for so long that it is given up.
        at_last: bool,
    },
}

/// `settle`: how long it must have been unasked for. Documents reach replicas one by one, and a folder of them file by file; so what isn't
/// named now may be named in a moment, or was named a moment ago by who led then.
pub fn fate(unasked_since: Option<Timestamp>, now: Timestamp, settle: Duration, give_up_after: Duration) -> Fate {
    let for_how_long = unasked_since.map(|since| Duration::try_from(now.duration_since(since)).unwrap_or_default());
    match for_how_long {
        Some(long) if long >= settle => Fate::IsEmptied { at_last: long >= settle.saturating_add(give_up_after) },
        _ => Fate::Stays,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(directory: &str, mode: u32) -> Place {
        Place::Folder { on: None, directory: directory.into(), mode, owner: None, group: Some(7) }
    }

    fn secret(name: &str) -> Place {
        Place::Secret { namespace: "shop".parse().unwrap(), secret: name.parse().unwrap() }
    }

    fn places(dispatch: &Dispatch) -> Vec<&Place> {
        dispatch.places.iter().map(|placed| &placed.place).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn a_place_stands_there_once_as_it_was_asked_for_last() {
        let one = Dispatch::default().with_place(&folder("/a", 0o400)).unwrap();
        assert_eq!(one.with_place(&folder("/a", 0o400)), None);
        let other = one.with_place(&folder("/a", 0o440)).unwrap();
        assert_eq!(places(&other), [&folder("/a", 0o440)]);
        let two = other.with_place(&secret("a")).unwrap().with_place(&secret("b")).unwrap();
        assert!(two.has(&folder("/a", 0)) && !two.has(&folder("/b", 0)));
        assert_eq!(places(&two.without_place(&folder("/a", 0)).without_place(&secret("a"))), [&secret("b")]);
    }

    #[test]
    fn what_nobody_asks_for_has_its_time_until_it_is_asked_for_again() {
        let two = Dispatch::default().with_place(&secret("a")).unwrap().with_place(&secret("b")).unwrap();
        assert_eq!(two.with_unasked(Some(&secret("b")), at(0)).unwrap().with_unasked(Some(&secret("b")), at(9)), None);
        let both = two.with_unasked(Some(&secret("b")), at(0)).unwrap().with_unasked(None, at(9)).unwrap();
        let since: Vec<_> = both.places.iter().map(|placed| placed.unasked_since).collect();
        assert_eq!(since, [Some(at(0)), Some(at(9))]);
        let again = both.with_place(&secret("a")).unwrap();
        assert_eq!(again.places.iter().find(|placed| placed.place == secret("a")).unwrap().unasked_since, None);
    }

    #[test]
    fn nothing_is_emptied_before_it_has_settled_and_nothing_is_tried_for_ever() {
        let (settle, day) = (Duration::from_secs(300), Duration::from_secs(1_000));
        let after = |seconds: i64| fate(Some(at(0)), at(seconds), settle, day);
        assert_eq!((fate(None, at(9_999), settle, day), after(-50), after(299)), (Fate::Stays, Fate::Stays, Fate::Stays));
        assert_eq!((after(300), after(1_299)), (Fate::IsEmptied { at_last: false }, Fate::IsEmptied { at_last: false }));
        assert_eq!(after(1_300), Fate::IsEmptied { at_last: true });
    }

    #[test]
    fn a_folder_is_on_a_machine_and_a_secret_everywhere() {
        let replica: Name = "keywright-0".parse().unwrap();
        let file = FileDelivery { directory: "/a".into(), mode: 0o400, owner: None, group: None, signal: None };
        let asked = Deliveries { file: Some(file), ..Deliveries::default() };
        let there = Place::of(&asked, Way::File, Some(&replica)).unwrap();
        assert!(there.is_within_reach_of(Some(&replica)) && !there.is_within_reach_of(None));
        assert!(!there.is_within_reach_of(Some(&"keywright-1".parse().unwrap())) && secret("a").is_within_reach_of(Some(&replica)));
        assert!(!there.is_at(&folder("/a", 0o400)));
        assert_eq!(Place::of(&asked, Way::KubernetesSecret, None), None);
    }

    #[test]
    fn it_is_written_and_read_as_it_is() {
        let dispatch = Dispatch::default().with_place(&folder("/a", 0o400)).unwrap().with_place(&secret("a")).unwrap();
        let dispatch = dispatch.with_unasked(Some(&secret("a")), at(3)).unwrap();
        let text = serde_json::to_string(&dispatch).unwrap();
        assert_eq!(serde_json::from_str::<Dispatch>(&text).unwrap(), dispatch);
    }
}
