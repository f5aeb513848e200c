//! The folder of the demo: a configuration and policies as anyone would write them, and all that the daemon writes.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::application;

/// Stands for 90 days.
pub(super) const MAX_AGE_SECONDS: u64 = 40;
/// Stands for 24 hours, generously.
pub(super) const OVERLAP_SECONDS: u64 = 8;
pub(super) const CREDENTIAL: &str = "dinie-sandbox";

/// Removed at the end, unless it is to be kept.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    keep: bool,
}

/// Where the daemon is to listen, and where the provider does.
pub(super) struct Places<'a> {
    pub(super) api: SocketAddr,
    pub(super) sandbox: &'a str,
    pub(super) production: &'a str,
    /// SHA-256 of the application's token, lower-case hex.
    pub(super) token_sha256: &'a str,
}

impl Folder {
    /// A new folder that only its owner can look into. One that is there already must be empty.
    pub(super) fn make(keep: Option<&Path>) -> io::Result<Folder> {
        let path = match keep {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("keywright-demo-{}", uuid::Uuid::new_v4().simple())),
        };
        std::fs::DirBuilder::new().recursive(keep.is_some()).mode(0o700).create(&path)?;
        if std::fs::read_dir(&path)?.next().is_some() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        Ok(Folder { path: std::fs::canonicalize(path)?, keep: keep.is_some() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.path.join("keywright.yaml")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("keywright.log")
    }

    pub(super) fn write(&self, places: &Places<'_>) -> io::Result<()> {
        std::fs::create_dir(self.path.join("policies"))?;
        std::fs::write(self.configuration(), configuration(places))?;
        std::fs::write(self.path.join("policies/demo.yaml"), policies(places))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // It holds nothing but sealed values; a folder that can't be removed is the system's to clean.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn configuration(places: &Places<'_>) -> String {
    let Places { api, sandbox, production, .. } = places;
    format!(
        "# A real configuration; only the provider's addresses are the simulator's.
policies: ./policies
store: {{embedded: {{directory: ./data}}}}
key: {{file: ./data/keywright.key}}
audit: {{file: ./data/audit.jsonl}}
listen: {{socket: ./data/keywright.sock, address: \"{api}\"}}
providers:
  dinie: {{sandbox: \"{sandbox}\", production: \"{production}\"}}
"
    )
}

fn policies(places: &Places<'_>) -> String {
    let token = places.token_sha256;
    let application = application::NAME;
    format!(
        "# Real policies; only their lengths of time are short.
apiVersion: keywright.dev/v1alpha1
kind: RotationPolicy
metadata: {{name: ninety-days-made-short}}
spec: {{maxAge: {MAX_AGE_SECONDS}s, overlap: {OVERLAP_SECONDS}s, spread: 1s, confirmation: required}}
---
apiVersion: keywright.dev/v1alpha1
kind: Credential
metadata: {{name: {CREDENTIAL}}}
spec: {{provider: dinie, environment: sandbox, rotation: ninety-days-made-short}}
---
apiVersion: keywright.dev/v1alpha1
kind: Application
metadata: {{name: {application}}}
spec:
  environment: sandbox
  credentials: [{CREDENTIAL}]
  identity: {{token: {{sha256: {token}}}}}
  lease: 5s
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_demo_folder_is_private_and_goes_away() {
        let folder = Folder::make(None).unwrap();
        let path = folder.path().to_owned();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn cli_demo_keeps_a_folder_that_is_named_and_touches_no_other_files() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("kept");
        drop(Folder::make(Some(&path)).unwrap());
        assert!(path.exists());
        std::fs::write(path.join("mine"), "x").unwrap();
        assert!(Folder::make(Some(&path)).is_err());
    }
}
