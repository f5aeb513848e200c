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
    /// By the wall clock of who led then; `None`: it is asked for, or on the machine of a replica that doesn't lead.
    pub unasked_since: Option<Timestamp>,
    /// Since when it was tried to empty it.
    pub failing_since: Option<Timestamp>,
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
        let placed = Placed { place: place.clone(), unasked_since: None, failing_since: None };
        if self.places.contains(&placed) {
            return None;
        }
        let mut grown = self.without_place(place);
        grown.places.push(placed);
        Some(grown)
    }

    /// With the time at all places that aren't the one that is asked for, where there is none yet; `None` if that is so. What is out
    /// of `replica`'s reach has none: what is asked for there is that replica's to know, and it begins anew when that one leads.
    pub fn with_unasked(&self, asked: Option<&Place>, replica: Option<&Name>, now: Timestamp) -> Option<Dispatch> {
        let mut marked = self.clone();
        let former = marked.places.iter_mut().filter(|placed| asked.is_none_or(|asked| !placed.place.is_at(asked)));
        for placed in former {
            if placed.place.is_within_reach_of(replica) {
                placed.unasked_since.get_or_insert(now);
            } else {
                (placed.unasked_since, placed.failing_since) = (None, None);
            }
        }
        (marked != *self).then_some(marked)
    }

    /// With the time at this place from which on it can't be emptied; `None` if there is one.
    pub fn with_failure(&self, place: &Place, now: Timestamp) -> Option<Dispatch> {
        let mut marked = self.clone();
        for placed in marked.places.iter_mut().filter(|placed| placed.place.is_at(place)) {
            placed.failing_since.get_or_insert(now);
        }
        (marked != *self).then_some(marked)
    }

    pub fn without_place(&self, place: &Place) -> Dispatch {
        let mut left = self.clone();
        left.places.retain(|placed| !placed.place.is_at(place));
        left
    }

    /// Whether values may lie where this replica can't get.
    pub fn is_elsewhere_too(&self, replica: Option<&Name>) -> bool {
        self.places.iter().any(|placed| !placed.place.is_within_reach_of(replica))
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
/// `give_up_after`: how long it is tried.
pub fn fate(placed: &Placed, now: Timestamp, settle: Duration, give_up_after: Duration) -> Fate {
    let for_longer = |since: Option<Timestamp>, limit: Duration| {
        since.is_some_and(|since| Duration::try_from(now.duration_since(since)).unwrap_or_default() >= limit)
    };
    match for_longer(placed.unasked_since, settle) {
        true => Fate::IsEmptied { at_last: for_longer(placed.failing_since, give_up_after) },
        false => Fate::Stays,
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
        let once = two.with_unasked(Some(&secret("b")), None, at(0)).unwrap();
        assert_eq!(once.with_unasked(Some(&secret("b")), None, at(9)), None);
        let both = once.with_unasked(None, None, at(9)).unwrap();
        let since: Vec<_> = both.places.iter().map(|placed| placed.unasked_since).collect();
        assert_eq!(since, [Some(at(0)), Some(at(9))]);
        let failing = both.with_failure(&secret("a"), at(11)).unwrap();
        assert_eq!(failing.with_failure(&secret("a"), at(12)), None);
        let again = failing.with_place(&secret("a")).unwrap();
        let placed = again.places.iter().find(|placed| placed.place == secret("a")).unwrap();
        assert_eq!((placed.unasked_since, placed.failing_since), (None, None));
    }

    #[test]
    fn nothing_is_emptied_before_it_has_settled_and_nothing_is_tried_for_ever() {
        let (settle, day) = (Duration::from_secs(300), Duration::from_secs(1_000));
        let placed = |unasked_since, failing_since| Placed { place: secret("a"), unasked_since, failing_since };
        let after = |seconds: i64| fate(&placed(Some(at(0)), None), at(seconds), settle, day);
        assert_eq!((fate(&placed(None, None), at(9_999), settle, day), after(-50), after(299)), (Fate::Stays, Fate::Stays, Fate::Stays));
        assert_eq!(
            (after(300), after(9_999)),
            (Fate::IsEmptied { at_last: false }, Fate::IsEmptied { at_last: false }),
            "it is tried first"
        );
        let failing = |seconds: i64| fate(&placed(Some(at(0)), Some(at(5_000))), at(seconds), settle, day);
        assert_eq!((failing(5_999), failing(6_000)), (Fate::IsEmptied { at_last: false }, Fate::IsEmptied { at_last: true }));
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
        // Another one leads meanwhile, and fills its own folder: this one's time doesn't run.
        let (mine, other): (_, Name) = (Dispatch::default().with_place(&there).unwrap(), "keywright-1".parse().unwrap());
        let elsewhere = Place::of(&asked, Way::File, Some(&other)).unwrap();
        assert_eq!(mine.with_unasked(Some(&elsewhere), Some(&other), at(0)), None);
        assert!(mine.is_elsewhere_too(Some(&other)) && !mine.is_elsewhere_too(Some(&replica)));
        let unasked = mine.with_unasked(None, Some(&replica), at(0)).unwrap().with_failure(&there, at(1)).unwrap();
        assert_eq!(unasked.with_unasked(None, Some(&other), at(2)), Some(mine), "it begins anew");
        assert_eq!(Place::of(&asked, Way::KubernetesSecret, None), None);
    }

    #[test]
    fn it_is_written_and_read_as_it_is() {
        let dispatch = Dispatch::default().with_place(&folder("/a", 0o400)).unwrap().with_place(&secret("a")).unwrap();
        let dispatch = dispatch.with_unasked(Some(&secret("a")), None, at(3)).unwrap();
        let text = serde_json::to_string(&dispatch).unwrap();
        assert_eq!(serde_json::from_str::<Dispatch>(&text).unwrap(), dispatch);
    }
}
