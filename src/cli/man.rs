//! `man`: the manual pages, from the same definition as the help texts.

use std::path::Path;
use std::process::ExitCode;

use super::failure::Failure;
use super::terminal::Terminal;

/// The page of the whole on standard output; with a folder, a file for it and for each command.
pub(super) fn man(folder: Option<&Path>, command: clap::Command, terminal: Terminal) -> Result<ExitCode, Failure> {
    match folder {
        Some(folder) => std::fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(command, folder))
            .map_err(|error| Failure::io(&format!("writing manual pages to {}", folder.display()), &error))?,
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(command).render(&mut page);
            rendered.map_err(|error| Failure::io("writing a manual page", &error))?;
            terminal.print_raw(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
