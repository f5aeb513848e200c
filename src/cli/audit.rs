//! `audit verify`: checks the hash chain offline.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::runtime::audit::{VerifyError, verify};

use super::failure::Failure;
use super::settings::Settings;
use super::terminal::Terminal;

/// `audit verify`, of the file that was named or of the configuration's.
pub(super) fn verify_trail(file: Option<PathBuf>, settings: &Settings, terminal: Terminal) -> Result<ExitCode, Failure> {
    let path = match file {
        Some(path) => path,
        None => settings.config()?.audit,
    };
    match audit_verify(&path, terminal.json, &mut anstream::stdout(), &mut anstream::stderr()) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => Err(Failure::failed("audit-unreadable", "the audit trail can't be checked", error.to_string())
            .then("name the file: `keywright audit verify FILE`")),
    }
}

/// Checks the trail and says how it is: `N records verified`, or `record N: reason`. True if it is whole.
///
/// # Errors
/// If the file can't be read, with its path and the reason; or if the answer can't be written.
fn audit_verify(path: &Path, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    match verify(path, None) {
        Ok(verified) if json => {
            let answer = serde_json::json!({"records": verified.records, "torn_bytes": verified.torn_bytes});
            writeln!(out, "{answer}")?;
            Ok(true)
        }
        Ok(verified) => {
            writeln!(out, "{} records verified", verified.records)?;
            if verified.torn_bytes > 0 {
                let bytes = verified.torn_bytes;
                writeln!(
                    err,
                    "the last line ({bytes} bytes) was never finished and is no record: the next start removes it and records that"
                )?;
            }
            Ok(true)
        }
        Err(VerifyError::Broken(broken)) if json => {
            let answer = serde_json::json!({"record": broken.record, "reason": broken.reason.to_string()});
            writeln!(out, "{answer}")?;
            let failure = Failure::failed("audit-broken", "the audit trail was changed", broken.to_string());
            writeln!(err, "{}", serde_json::to_string(&failure.problem)?)?;
            Ok(false)
        }
        Err(VerifyError::Broken(broken)) => {
            writeln!(out, "{broken}")?;
            Ok(false)
        }
        Err(VerifyError::Unreadable(kind)) => {
            Err(io::Error::new(kind, format!("could not read the audit file `{}`: {kind}", path.display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::audit::{Action, Actor, Audit as _};
    use crate::runtime::audit::AuditFile;

    fn answer(path: &Path, json: bool) -> (bool, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let whole = audit_verify(path, json, &mut out, &mut err).unwrap();
        (whole, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[tokio::test]
    async fn cli_audit_says_how_the_trail_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let missing = audit_verify(&path, false, &mut io::sink(), &mut io::sink()).unwrap_err();
        assert!(missing.to_string().contains("audit.jsonl"), "{missing}");
        let trail = AuditFile::open(&path, jiff::Timestamp::UNIX_EPOCH).unwrap();
        for word in ["planned", "promoted"] {
            let action = Action { actor: Actor::Daemon, action: word.into(), credential: None, version: None, detail: None };
            trail.record(jiff::Timestamp::UNIX_EPOCH, action).await.unwrap();
        }
        assert_eq!(answer(&path, false), (true, "2 records verified\n".into(), String::new()));
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"seq\"")).unwrap();
        let (verified, out, err) = answer(&path, false);
        assert!(verified && out == "2 records verified\n" && err.contains("6 bytes"));
        assert_eq!(answer(&path, true).1, "{\"records\":2,\"torn_bytes\":6}\n");
        std::fs::write(&path, whole.replace("promoted", "demoted")).unwrap();
        assert_eq!(answer(&path, false), (false, "record 2: its hash doesn't match its contents: it was changed\n".into(), String::new()));
        let (_, out, err) = answer(&path, true);
        let [json, problem] = [out, err].map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
        assert_eq!(json["record"], 2);
        assert_eq!(problem["type"], "https://keywright.dev/problems/audit-broken");
    }
}
