//! `submit`: fields by standard input, never as arguments; returns when the version is current, or refused.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use bytes::Bytes;
use http::Method;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use crate::domain::ids::{FieldName, Name};
use crate::domain::material::{Material, Secret};

use super::client::{Call, Client, SUBMIT_TIMEOUT};
use super::failure::Failure;
use super::terminal::{GOOD, Terminal};
use super::views::{Pages, RequestView, StatusView};

/// The API takes no longer body.
const INPUT_LENGTH_MAX: usize = 128 << 10;

pub(super) async fn submit(name: &Name, adopt: bool, client: &Client, terminal: Terminal) -> Result<ExitCode, Failure> {
    let is_typed = std::io::stdin().is_terminal();
    if is_typed && !adopt {
        show_request(name, client).await;
    }
    let material = match adopt {
        false => bring(name).await?,
        true if is_typed => Material::default(),
        true => read_object_or_nothing(std::io::stdin().lock())?,
    };
    terminal.remark(&format!("{name}: proving that the key belongs here; this can take a few minutes"));
    let call = Call {
        body: Some(submission(&material, adopt)),
        timeout: SUBMIT_TIMEOUT,
        ..Call::new(Method::PUT, format!("/v1/credentials/{name}/submission"))
    };
    let submitted: Value = client.send(call).await?.parse()?;
    if terminal.json {
        terminal.print_json(&submitted)?
    } else {
        terminal.print(&sentence(name, &submitted))?
    }
    Ok(ExitCode::SUCCESS)
}

/// What is asked for, before the fields are. Without an answer there is nothing to show: the submission will say why.
async fn show_request(name: &Name, client: &Client) {
    let Ok(pages) = Pages::one(client, &format!("/v1/status/{name}")).await else { return };
    let Ok(view) = pages.view::<StatusView>() else { return };
    let request = view.credentials.into_iter().next().and_then(|row| row.request);
    for line in request.iter().filter(|request| request.wants_a_key()).flat_map(RequestView::lines) {
        // The prompt says what is wrong with the terminal.
        let _ = show(&format!("{line}\n"));
    }
}

/// The fields that a person brings: piped in, or typed without echo.
pub(super) async fn bring(name: &Name) -> Result<Material, Failure> {
    let material = if std::io::stdin().is_terminal() { ask(name).await? } else { read_object(std::io::stdin().lock())? };
    if material.is_empty() {
        return Err(Failure::failed("invalid-fields", "nothing was brought", "no field was given"));
    }
    Ok(material)
}

/// The body of the request, in memory that is wiped when the request is done.
pub(super) fn submission(material: &Material, adopt: bool) -> Bytes {
    let (head, fields, tail) = (b"{\"fields\":", material.to_json(), if adopt { ",\"adopt\":true}" } else { "}" });
    let mut body = Zeroizing::new(Vec::with_capacity(head.len() + fields.expose().len() + tail.len()));
    body.extend_from_slice(head);
    body.extend_from_slice(fields.expose());
    body.extend_from_slice(tail.as_bytes());
    Bytes::from_owner(body)
}

fn sentence(name: &Name, submitted: &Value) -> String {
    let version = submitted.get("version").and_then(Value::as_str).unwrap_or("the version");
    let verdict = submitted.pointer("/proof/verdict").and_then(Value::as_str).unwrap_or("unknown");
    let mut lines = vec![format!("{GOOD}{name}: {version} is current{GOOD:#}, proof of its environment: {verdict}")];
    for piece in submitted.pointer("/proof/evidence").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| piece.get(key).and_then(Value::as_str).unwrap_or("?");
        lines.push(format!("  {} says {}: {}", text("kind"), text("says"), text("why")));
    }
    lines.join("\n")
}

/// Piped input: one flat JSON object, no longer than the API takes.
fn read_object(input: impl Read) -> Result<Material, Failure> {
    object(&read_text(input)?)
}

/// The same where nothing needs to be brought.
fn read_object_or_nothing(input: impl Read) -> Result<Material, Failure> {
    let text = read_text(input)?;
    if text.iter().all(u8::is_ascii_whitespace) { Ok(Material::default()) } else { object(&text) }
}

fn read_text(input: impl Read) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Reserved once: growing would leave unwiped copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(INPUT_LENGTH_MAX + 1));
    let limit = u64::try_from(INPUT_LENGTH_MAX).unwrap_or(u64::MAX) + 1;
    input.take(limit).read_to_end(&mut text).map_err(|error| Failure::io("reading standard input", &error))?;
    if text.len() > INPUT_LENGTH_MAX {
        return Err(Failure::failed("too-large", "the submission is too long", "standard input has more than 128 KiB"));
    }
    Ok(text)
}

fn object(text: &[u8]) -> Result<Material, Failure> {
    Material::from_json(text).map_err(|error| {
        Failure::failed("invalid-fields", "standard input holds no fields", format!("it {error}"))
            .then(r#"pipe in an object such as {"client_id":"…","client_secret":"…"}"#)
    })
}

/// Asks for name and value of each field. Values aren't echoed; the terminal is put right however this ends.
async fn ask(name: &Name) -> Result<Material, Failure> {
    let _echo = EchoGuard::new()?;
    let question = format!("The fields of {name}, one after the other. An empty name ends.");
    let prompt = tokio::task::spawn_blocking(move || prompt_fields(&question));
    tokio::select! {
        answered = prompt => answered.map_err(|_| Failure::failed("io", "the terminal can't be read", "reading it broke off"))?,
        _ = tokio::signal::ctrl_c() => Err(Failure::failed("interrupted", "nothing was brought", "interrupted while asking")),
    }
}

fn prompt_fields(question: &str) -> Result<Material, Failure> {
    let mut material = Material::default();
    show(&format!("{question}\n"))?;
    loop {
        show("field name: ")?;
        set_echo(true)?;
        let name = read_line()?;
        if name.is_empty() {
            return Ok(material);
        }
        let Ok(field) = std::str::from_utf8(&name).unwrap_or_default().parse::<FieldName>() else {
            // What was typed isn't repeated: it may be the value, typed too early.
            show("  that is no name of a field: lower-case letters, digits and underscores\n")?;
            continue;
        };
        show(&format!("value of {field} (not shown): "))?;
        set_echo(false)?;
        let value = Secret::new(read_line()?.as_slice());
        set_echo(true)?;
        show("\n")?;
        material.insert(field, value);
    }
}

fn show(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stderr().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::io("writing to the terminal", &error))
}

/// One line without its end, byte by byte: a buffered reader would keep a copy of the value.
fn read_line() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut line = Zeroizing::new(Vec::with_capacity(Secret::LENGTH_MAX));
    let mut byte = [0u8; 1];
    loop {
        let count =
            rustix::io::read(rustix::stdio::stdin(), &mut byte).map_err(|error| Failure::io("reading the terminal", &error.into()))?;
        if count == 0 || byte[0] == b'\n' {
            byte.zeroize();
            return Ok(line);
        }
        if line.len() == Secret::LENGTH_MAX {
            return Err(Failure::failed("too-large", "the value is too long", "a value has 65536 bytes at most"));
        }
        line.push(byte[0]);
    }
}

fn set_echo(on: bool) -> Result<(), Failure> {
    let failed = |error: rustix::io::Errno| Failure::io("switching the terminal's echo", &error.into());
    let mut modes = tcgetattr(rustix::stdio::stdin()).map_err(failed)?;
    modes.local_modes.set(LocalModes::ECHO, on);
    tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &modes).map_err(failed)
}

/// Puts the terminal back as it was.
struct EchoGuard(Termios);

impl EchoGuard {
    fn new() -> Result<EchoGuard, Failure> {
        tcgetattr(rustix::stdio::stdin()).map(EchoGuard).map_err(|error| Failure::io("reading the terminal's modes", &error.into()))
    }
}

impl Drop for EchoGuard {
    fn drop(&mut self) {
        // There is nothing to be done about a terminal that is gone.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cli_submit_wraps_the_fields_and_nothing_else() {
        let material = read_object(br#" {"client_id":"a","client_secret":"b\"\\"} "#.as_slice()).unwrap();
        let body: Value = serde_json::from_slice(&submission(&material, false)).unwrap();
        assert_eq!(body, json!({"fields": {"client_id": "a", "client_secret": "b\"\\"}}));
        let body: Value = serde_json::from_slice(&submission(&Material::default(), true)).unwrap();
        assert_eq!(body, json!({"fields": {}, "adopt": true}));
    }

    #[test]
    fn cli_submit_needs_no_fields_where_they_lie_in_the_store() {
        for nothing in ["", " \n"] {
            assert!(read_object_or_nothing(nothing.as_bytes()).unwrap().is_empty());
        }
        assert_eq!(read_object_or_nothing(br#"{"client_id":"a"}"#.as_slice()).unwrap().len(), 1);
        assert!(read_object_or_nothing(b"hunter2".as_slice()).is_err());
    }

    #[test]
    fn cli_submit_refuses_other_input_without_repeating_it() {
        for bad in ["hunter2", "[\"hunter2\"]", "{\"a\":{\"b\":\"hunter2\"}}", ""] {
            let failure = read_object(bad.as_bytes()).unwrap_err();
            assert_eq!(failure.exit_code(), ExitCode::from(1));
            assert!(!format!("{failure:?}").contains("hunter2"));
        }
        let long = vec![b' '; INPUT_LENGTH_MAX + 1];
        assert_eq!(read_object(long.as_slice()).unwrap_err().problem.slug(), "too-large");
    }
}
