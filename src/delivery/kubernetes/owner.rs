//! Whose a Secret is: judged by its metadata before it is touched.

use std::collections::BTreeMap;

use super::objects::SecretSeen;
use crate::domain::ids::{InstallationId, Name};

/// The label of objects that a program manages, as Kubernetes recommends it.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "keywright");
pub const APPLICATION: &str = "keywright.dev/application";
pub const INSTALLATION: &str = "keywright.dev/installation";
/// A keyed hash of all that we wrote: nobody without the key can try values against it.
pub const FINGERPRINT: &str = "keywright.dev/fingerprint";
/// The revision of each credential when it was written: `<credential>=<revision>`, with spaces between them.
pub const REVISIONS: &str = "keywright.dev/revisions";
/// A person hands a Secret over to us, by the name of the application.
pub const ADOPT: &str = "keywright.dev/adopt";

/// Whom we write for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub installation: InstallationId,
    pub application: Name,
}

/// How a Secret stands to its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Absent,
    /// It is being deleted: nothing that is written now would last.
    Ending,
    Ours,
    /// A person said that it shall be ours.
    HandedOver,
    Foreign(Foreign),
}

/// Why a Secret isn't ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// It doesn't bear our label and both annotations.
    Unmarked,
    OtherApplication,
    /// Another installation's, or ours from before it was restored: a copy of that may live on, and write there.
    OtherInstallation,
}

impl Owner {
    pub fn judge(&self, seen: Option<&SecretSeen>) -> Standing {
        let Some(seen) = seen else { return Standing::Absent };
        let annotation = |name: &str| seen.annotations.get(name).map(String::as_str);
        let foreign = match (annotation(APPLICATION), annotation(INSTALLATION)) {
            _ if seen.labels.get(MANAGED_BY.0).is_none_or(|by| by != MANAGED_BY.1) => Some(Foreign::Unmarked),
            (Some(application), _) if application != self.application.as_str() => Some(Foreign::OtherApplication),
            (Some(_), Some(installation)) if installation != self.installation.0.to_string() => Some(Foreign::OtherInstallation),
            (Some(_), Some(_)) => None,
            _ => Some(Foreign::Unmarked),
        };
        match foreign {
            _ if seen.is_ending => Standing::Ending,
            None => Standing::Ours,
            Some(_) if annotation(ADOPT) == Some(self.application.as_str()) => Standing::HandedOver,
            Some(foreign) => Standing::Foreign(foreign),
        }
    }
}

/// What is to stand in [`REVISIONS`].
pub fn written(revisions: &[(Name, u64)]) -> String {
    let pairs: Vec<String> = revisions.iter().map(|(name, revision)| format!("{name}={revision}")).collect();
    pairs.join(" ")
}

/// Reads what stands in [`REVISIONS`]. Whatever can't be read says nothing.
pub fn revisions(seen: &SecretSeen) -> BTreeMap<&str, u64> {
    let written = seen.annotations.get(REVISIONS).map(String::as_str).unwrap_or_default();
    written.split(' ').filter_map(|pair| pair.split_once('=')).filter_map(|(name, at)| Some((name, at.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn owner() -> Owner {
        Owner { installation: InstallationId(Uuid::from_u128(7)), application: "payments".parse().unwrap() }
    }

    fn seen(label: &str, annotations: &[(&str, &str)]) -> SecretSeen {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        SecretSeen { labels: BTreeMap::from([(MANAGED_BY.0.to_owned(), label.to_owned())]), annotations, ..SecretSeen::default() }
    }

    #[test]
    fn only_label_and_both_annotations_together_make_it_ours() {
        let ours = Uuid::from_u128(7).to_string();
        let other = Uuid::from_u128(8).to_string();
        let unmarked = Standing::Foreign(Foreign::Unmarked);
        for (label, application, installation, expected) in [
            ("keywright", Some("payments"), Some(ours.as_str()), Standing::Ours),
            ("Helm", Some("payments"), Some(&ours), unmarked),
            ("keywright", None, Some(&ours), unmarked),
            ("keywright", Some("payments"), None, unmarked),
            ("keywright", Some("ledger"), Some(&ours), Standing::Foreign(Foreign::OtherApplication)),
            ("keywright", Some("payments"), Some(&other), Standing::Foreign(Foreign::OtherInstallation)),
        ] {
            let annotations: Vec<_> = [(APPLICATION, application), (INSTALLATION, installation)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let mut secret = seen(label, &annotations);
            assert_eq!(owner().judge(Some(&secret)), expected, "{label} {annotations:?}");
            secret.annotations.insert(ADOPT.to_owned(), "ledger".to_owned());
            assert_eq!(owner().judge(Some(&secret)), expected, "handed over to another application");
            secret.annotations.insert(ADOPT.to_owned(), "payments".to_owned());
            let handed = if expected == Standing::Ours { Standing::Ours } else { Standing::HandedOver };
            assert_eq!(owner().judge(Some(&secret)), handed);
            secret.is_ending = true;
            assert_eq!(owner().judge(Some(&secret)), Standing::Ending);
        }
        assert_eq!(owner().judge(None), Standing::Absent);
        assert_eq!(owner().judge(Some(&SecretSeen::default())), unmarked);
    }

    #[test]
    fn revisions_are_read_as_they_are_written() {
        let secret = seen("keywright", &[(REVISIONS, "dinie=12 tap=3 broken=x =5 alone")]);
        assert_eq!(revisions(&secret), BTreeMap::from([("dinie", 12), ("tap", 3), ("", 5)]));
        let both = [("dinie".parse().unwrap(), 12), ("tap".parse().unwrap(), 3)];
        assert_eq!(written(&both), "dinie=12 tap=3");
    }
}
