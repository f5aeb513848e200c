//! `get`: the one command that prints values, to standard output and nowhere else.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::HeaderValue;
use serde::Deserialize;
use std::os::unix::fs::MetadataExt;
use zeroize::Zeroizing;

use crate::domain::ids::{FieldName, Name};
use crate::domain::material::{Material, Secret};
use crate::domain::reason::Reason;

use super::client::{Call, Client, Reply};
use super::failure::Failure;
use super::terminal::{Terminal, out_is_terminal};

/// A Kubernetes token has one or two KiB.
const TOKEN_LENGTH_MAX: usize = 16 << 10;

/// What is asked for, and as whom.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: Name,
    pub(super) field: Option<FieldName>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) reason: Option<Reason>,
}

pub(super) async fn get(wanted: Wanted, client: Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let Wanted { name, field, token_file, reason } = wanted;
    let client = match token_file.as_deref() {
        Some(path) => client.with_authorization(read_token(path, terminal)?),
        None => client,
    };
    let reply = client.send(Call { reason, ..Call::get(format!("/v1/credentials/{name}")) }).await?;
    match field {
        None if terminal.json => print_document(&reply.body, terminal)?,
        None => print_document(fields_of(&reply)?.to_json().expose(), terminal)?,
        Some(field) => print_field(&name, &field, fields_of(&reply)?, terminal)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Deserialize)]
struct DocumentReply {
    fields: std::collections::BTreeMap<FieldName, String>,
}

fn fields_of(reply: &Reply) -> Result<Material, Failure> {
    let document: DocumentReply = reply.parse()?;
    Ok(document.fields.into_iter().map(|(name, value)| (name, Secret::from(value))).collect())
}

fn print_document(json: &[u8], terminal: Terminal) -> Result<(), Failure> {
    let mut line = Zeroizing::new(Vec::with_capacity(json.len() + 1));
    line.extend_from_slice(json.trim_ascii_end());
    line.push(b'\n');
    terminal.print_raw(&line)
}

/// The bytes of the value as they are. A newline is added for a person's terminal only: in a pipe it would become
/// part of the value.
fn print_field(name: &Name, field: &FieldName, material: Material, terminal: Terminal) -> Result<(), Failure> {
    if terminal.json {
        let (picked, _) = material.partition(|other| other == field);
        return if picked.is_empty() { Err(no_field(name, field)) } else { print_document(picked.to_json().expose(), terminal) };
    }
    let value = material.get(field).ok_or_else(|| no_field(name, field))?;
    terminal.print_raw(value.expose())?;
    if out_is_terminal() { terminal.print_raw(b"\n") } else { Ok(()) }
}

fn no_field(name: &Name, field: &FieldName) -> Failure {
    Failure::failed("no-field", "there is no such field", format!("{name} has no field `{field}` that is served"))
}

/// A token that others can read isn't one application's any more: said, not refused, as mounted volumes often are.
fn read_token(path: &Path, terminal: Terminal) -> Result<HeaderValue, Failure> {
    let (token, is_exposed) = token_of(path)?;
    if is_exposed {
        terminal.remark(&format!("warning: {} can be read by others: chmod 600 it", path.display()));
    }
    bearer(&token)
}

/// The token in a file, and whether others can read it.
///
/// # Errors
/// If the file can't be read, or holds no token.
pub(super) fn token_of(path: &Path) -> Result<(Zeroizing<Vec<u8>>, bool), Failure> {
    let doing = format!("reading the token in {}", path.display());
    let failed = |error: std::io::Error| Failure::io(&doing, &error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let is_exposed = file.metadata().map_err(failed)?.mode() & 0o077 != 0;
    let mut text = Zeroizing::new(Vec::with_capacity(TOKEN_LENGTH_MAX + 1));
    let limit = u64::try_from(TOKEN_LENGTH_MAX).unwrap_or(u64::MAX) + 1;
    file.take(limit).read_to_end(&mut text).map_err(failed)?;
    let token = text.trim_ascii();
    let usable = !token.is_empty() && token.len() <= TOKEN_LENGTH_MAX && token.iter().all(u8::is_ascii_graphic);
    if !usable {
        return Err(Failure::failed(
            "no-token",
            "the file holds no token",
            format!("{}: one line of printable characters is expected", path.display()),
        ));
    }
    Ok((Zeroizing::new(token.to_vec()), is_exposed))
}

/// The header that shows who calls. Marked as sensitive: it has no `Debug` form.
pub(super) fn bearer(token: &[u8]) -> Result<HeaderValue, Failure> {
    let header = Zeroizing::new([b"Bearer ".as_slice(), token].concat());
    let mut value = HeaderValue::from_bytes(&header)
        .map_err(|_| Failure::failed("no-token", "the token can't be sent", "it holds control characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_token_is_trimmed_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "hunter2\n").unwrap();
        let header = read_token(&path, Terminal { json: true }).unwrap();
        assert_eq!(header.as_bytes(), b"Bearer hunter2");
        assert!(!format!("{header:?}").contains("hunter2"));
        for bad in ["", "\n", "two words", "nul\0"] {
            std::fs::write(&path, bad).unwrap();
            assert!(read_token(&path, Terminal { json: true }).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cli_fields_are_read_from_the_document() {
        let body = br#"{"name":"a","version":"v1","fields":{"client_id":"x","client_secret":"y"}}"#;
        let material = fields_of(&Reply { body: bytes::Bytes::from_static(body) }).unwrap();
        assert_eq!(material.to_json().expose(), br#"{"client_id":"x","client_secret":"y"}"#);
    }
}
