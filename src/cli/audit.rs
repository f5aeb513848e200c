//! `audit verify`: checks the hash chain of the trail, offline.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use crate::runtime::audit::{VerifyError, verify as verify_chain};

use super::failure::Failure;
use super::settings::Settings;
use super::terminal::{BAD, CAUTION, Terminal};

pub(super) fn verify(file: Option<PathBuf>, settings: &Settings, terminal: Terminal) -> Result<ExitCode, Failure> {
    let path = match file {
        Some(path) => path,
        None => settings.audit_file()?,
    };
    match verify_chain(&path, None) {
        Ok(verified) if terminal.json => {
            terminal.print_json(&json!({"records": verified.records, "torn_bytes": verified.torn_bytes}))?;
        }
        Ok(verified) => {
            if verified.torn_bytes > 0 {
                terminal.remark(&format!("{CAUTION}the last line has no end{CAUTION:#}: it is no record, and the next start removes it"));
            }
            terminal.print(&format!("{} records verified", verified.records))?;
        }
        Err(VerifyError::Broken(broken)) => {
            if terminal.json {
                terminal.print_json(&json!({"record": broken.record, "reason": broken.reason.to_string()}))?;
            } else {
                terminal.print(&format!("{BAD}record {}{BAD:#}: {}", broken.record, broken.reason))?;
            }
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => {
            let detail = format!("{}: {error}", path.display());
            return Err(Failure::failed("audit-unreadable", "the audit trail can't be read", detail)
                .then("name the file: `keywright audit verify FILE`"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
