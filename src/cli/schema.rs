//! `schema`: the JSON Schema of the policies, for editors.

use std::process::ExitCode;

use super::failure::Failure;
use super::terminal::Terminal;

pub(super) fn schema(terminal: Terminal) -> Result<ExitCode, Failure> {
    let schema = crate::policies::schema();
    if terminal.json {
        terminal.print_json(&schema)?;
    } else {
        // Numbers, texts and lists of these: it is always written.
        terminal.print(&serde_json::to_string_pretty(&schema).unwrap_or_default())?;
    }
    Ok(ExitCode::SUCCESS)
}
