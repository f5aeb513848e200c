//! Ways of delivery beside the stream, as the Application document chooses them. The validated form.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{InstanceName, Name, ObjectName};
use super::restarts::Restarts;

/// A way by which an application's state is brought to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A folder of files, replaced as a whole.
    File,
    /// An object of Kubernetes.
    KubernetesSecret,
    /// A signed message that names what changed, and holds no value.
    Webhook,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::File, Way::KubernetesSecret, Way::Webhook];

    pub const fn as_str(self) -> &'static str {
        match self {
            Way::File => "file",
            Way::KubernetesSecret => "kubernetes-secret",
            Way::Webhook => "webhook",
        }
    }

    /// Whether values go this way: then what it brought is held under [`Way::instance`].
    pub const fn carries_material(self) -> bool {
        !matches!(self, Way::Webhook)
    }

    /// The instance that holds what was brought this way.
    pub fn instance(self) -> InstanceName {
        InstanceName::of_way(self.as_str())
    }
}

/// What an Application document asks for beside the stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deliveries {
    pub file: Option<FileDelivery>,
    pub kubernetes: Option<KubernetesDelivery>,
    pub webhook: Option<WebhookDelivery>,
}

impl Deliveries {
    /// The ways that are asked for.
    pub fn ways(&self) -> impl Iterator<Item = Way> {
        let asked =
            [(self.file.is_some(), Way::File), (self.kubernetes.is_some(), Way::KubernetesSecret), (self.webhook.is_some(), Way::Webhook)];
        asked.into_iter().filter_map(|(asked, way)| asked.then_some(way))
    }
}

/// A folder of files on the daemon's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDelivery {
    /// Absolute, without `.` and `..`.
    pub directory: PathBuf,
    /// Of each file: read by its owner, and by its group at most.
    pub mode: u32,
    /// Numeric uid; `None`: the daemon's own.
    pub owner: Option<u32>,
    /// Numeric gid; `None`: the daemon's own.
    pub group: Option<u32>,
    pub signal: Option<SignalDelivery>,
}

impl FileDelivery {
    /// The mode of files that say none.
    pub const MODE_DEFAULT: u32 = 0o400;
}

/// Who is told that the files were replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalDelivery {
    /// Absolute, without `.` and `..`. Holds the number of the process, in decimal digits.
    pub pid_file: PathBuf,
    pub name: SignalName,
}

/// The signals that a delivery may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalName {
    Hup,
    Usr1,
    Usr2,
    Int,
    Term,
}

/// A Secret in Kubernetes, and the workloads that are restarted when it has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesDelivery {
    /// Of [`KubernetesDelivery::SECRET_LENGTH_MAX`] characters at most.
    pub secret: ObjectName,
    pub namespace: Name,
    /// `None`: nothing is restarted.
    pub restarts: Option<Restarts>,
}

impl KubernetesDelivery {
    /// Annotations are named `checksum-<secret>` and `restarts-<secret>`, and the name of an annotation has 63 characters at most.
    pub const SECRET_LENGTH_MAX: usize = 63 - "checksum-".len();
}

/// Standard Webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    pub url: String,
    /// Files with the secrets that sign, one or two: with two, each message has two signatures.
    pub secrets: Vec<PathBuf>,
    /// Private and loopback addresses may be called, too.
    pub allow_private: bool,
}

impl WebhookDelivery {
    /// During a rotation of the signing secret there are two.
    pub const SECRETS_MAX: usize = 2;
}

/// The longest path that a document may name, in bytes.
pub const PATH_BYTES_MAX: usize = 1_024;

/// Whether a path is absolute, in its shortest form, and short enough: no `.`, no `..`, no empty part, no control character.
pub fn is_plain_path(path: &str) -> bool {
    let Some(relative) = path.strip_prefix('/') else { return false };
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255 && !part.chars().any(char::is_control);
    path.len() <= PATH_BYTES_MAX && relative.split('/').all(is_plain)
}

/// Whether one of two folders lies in the other, or both are the same: two deliveries there would take each other's files away.
pub fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_taken() {
        for path in ["/a", "/run/secrets/app", "/a b/c.d", "/..data"] {
            assert!(is_plain_path(path), "{path}");
        }
        let long = format!("/{}", "a/".repeat(600));
        for path in ["", "/", "a", "./a", "/a/", "//a", "/a/../b", "/./a", "/a\nb", &long, "/a/.."] {
            assert!(!is_plain_path(path), "{path}");
        }
    }

    #[test]
    fn folders_overlap_by_whole_names() {
        let overlaps = |one: &str, other: &str| overlap(Path::new(one), Path::new(other));
        assert!(overlaps("/a", "/a") && overlaps("/a", "/a/b") && overlaps("/a/b", "/a"));
        assert!(!overlaps("/a", "/ab") && !overlaps("/a/b", "/a/c"));
    }

    #[test]
    fn each_way_has_an_instance_of_its_own() {
        let names: std::collections::BTreeSet<_> = Way::ALL.map(Way::instance).into();
        assert_eq!(names.len(), Way::ALL.len());
        assert!(Way::ALL.iter().all(|way| way.as_str().parse::<InstanceName>().is_ok_and(|name| name == way.instance())));
    }
}
