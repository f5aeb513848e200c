//! What of a delivery outlives the process that carried it: where values lie, and which messages are under way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::delivery::{Deliveries, FileDelivery, KubernetesDelivery, Way, overlap};
use super::ids::{Name, ObjectName};
use super::outbox::Outbox;

/// Where values of an application were brought, with what it takes to take them away again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    Folder { directory: PathBuf, mode: u32, owner: Option<u32>, group: Option<u32> },
    Secret { namespace: Name, secret: ObjectName },
}

impl Place {
    /// Where a document wants values to be; `None` where this way isn't asked for, or brings none.
    pub fn of(asked: &Deliveries, way: Way) -> Option<Place> {
        match way {
            Way::File => asked.file.as_ref().map(Place::of_files),
            Way::KubernetesSecret => asked.kubernetes.as_ref().map(Place::of_secret),
            Way::Webhook => None,
        }
    }

    fn of_files(asked: &FileDelivery) -> Place {
        let FileDelivery { directory, mode, owner, group, signal: _ } = asked.clone();
        Place::Folder { directory, mode, owner, group }
    }

    fn of_secret(asked: &KubernetesDelivery) -> Place {
        Place::Secret { namespace: asked.namespace.clone(), secret: asked.secret.clone() }
    }

    /// Whether both are the same target, whatever mode and owner it has.
    pub fn is_at(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Folder { directory, .. }, Place::Folder { directory: another, .. }) => directory == another,
            (Place::Secret { .. }, Place::Secret { .. }) => self == other,
            (Place::Folder { .. }, Place::Secret { .. }) | (Place::Secret { .. }, Place::Folder { .. }) => false,
        }
    }

    /// Whether files that another application asks for would be taken away with those here.
    pub fn holds_files_of(&self, asked: &Deliveries) -> bool {
        match (self, &asked.file) {
            (Place::Folder { directory, .. }, Some(files)) => overlap(directory, &files.directory),
            (Place::Folder { .. } | Place::Secret { .. }, _) => false,
        }
    }
}

/// What is durable about the delivery to one application on one way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// Where values may lie. Written before anything is brought there, and struck when it was emptied.
    pub places: Vec<Place>,
    pub outbox: Outbox,
}

impl Dispatch {
    /// With this place as it is now; `None` if it stands there so.
    pub fn with_place(&self, place: &Place) -> Option<Dispatch> {
        if self.places.contains(place) {
            return None;
        }
        let mut grown = self.without_place(place);
        grown.places.push(place.clone());
        Some(grown)
    }

    pub fn without_place(&self, place: &Place) -> Dispatch {
        let mut left = self.clone();
        left.places.retain(|other| !other.is_at(place));
        left
    }

    /// Places that aren't the one that is asked for.
    pub fn former_places<'a>(&'a self, asked: Option<&'a Place>) -> impl Iterator<Item = &'a Place> {
        self.places.iter().filter(move |place| asked.is_none_or(|asked| !place.is_at(asked)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(directory: &str, mode: u32) -> Place {
        Place::Folder { directory: directory.into(), mode, owner: None, group: Some(7) }
    }

    fn secret(name: &str) -> Place {
        Place::Secret { namespace: "shop".parse().unwrap(), secret: name.parse().unwrap() }
    }

    #[test]
    fn a_place_stands_there_once_as_it_was_asked_for_last() {
        let one = Dispatch::default().with_place(&folder("/a", 0o400)).unwrap();
        assert_eq!(one.with_place(&folder("/a", 0o400)), None);
        let other = one.with_place(&folder("/a", 0o440)).unwrap();
        assert_eq!(other.places, [folder("/a", 0o440)]);
        let two = other.with_place(&secret("a")).unwrap().with_place(&secret("b")).unwrap();
        assert_eq!(two.former_places(Some(&secret("b"))).collect::<Vec<_>>(), [&folder("/a", 0o440), &secret("a")]);
        assert_eq!(two.former_places(None).count(), 3);
        assert_eq!(two.without_place(&folder("/a", 0)).without_place(&secret("a")).places, [secret("b")]);
    }

    #[test]
    fn a_folder_that_another_application_was_given_is_not_emptied() {
        let asks = |directory: &str| {
            let file = FileDelivery { directory: directory.into(), mode: 0o400, owner: None, group: None, signal: None };
            Deliveries { file: Some(file), ..Deliveries::default() }
        };
        assert!(folder("/a", 0).holds_files_of(&asks("/a")) && folder("/a", 0).holds_files_of(&asks("/a/b")));
        assert!(!folder("/a", 0).holds_files_of(&asks("/ab")) && !folder("/a", 0).holds_files_of(&Deliveries::default()));
        assert!(!secret("a").holds_files_of(&asks("/a")));
        let expected = Place::Folder { directory: "/a".into(), mode: 0o400, owner: None, group: None };
        assert_eq!(Place::of(&asks("/a"), Way::File), Some(expected));
        assert_eq!(Place::of(&asks("/a"), Way::KubernetesSecret), None);
    }

    #[test]
    fn it_is_written_and_read_as_it_is() {
        let dispatch = Dispatch::default().with_place(&folder("/a", 0o400)).unwrap().with_place(&secret("a")).unwrap();
        let text = serde_json::to_string(&dispatch).unwrap();
        assert_eq!(serde_json::from_str::<Dispatch>(&text).unwrap(), dispatch);
    }
}
