//! What every problem of a document owes its reader: a place inside the file, a code, a way out, no secret, and no flood.

use keywright::policies::{Problem, Problems, Source};

use super::json::Json;

/// A value that may be a secret, among the words of documents.
pub(crate) const CANARY: &str = "Zq7RkW2mXv9TtB4nYc6LpH8s";

/// All that may be listed, and the one that says so.
const PROBLEMS_MAX: usize = 1_001;
const RENDERED_MAX: usize = 4 << 20;

/// What is wrong with these problems, if something is.
pub(crate) fn wrong_with(problems: &Problems, sources: &[Source]) -> Option<String> {
    let all = problems.as_slice();
    if all.is_empty() || all.len() > PROBLEMS_MAX {
        return Some(format!("{} problems", all.len()));
    }
    let widths: Vec<(&str, Vec<usize>)> = sources.iter().map(|source| (source.file.as_str(), widths(&source.text))).collect();
    if let Some(why) = all.iter().find_map(|problem| wrong_place(problem, &widths)) {
        return Some(why);
    }
    let rendered = problems.render(false);
    let said = format!("{rendered}\n{problems}\n{problems:?}\n{}", serde_json::to_string(problems).unwrap());
    if said.len() > RENDERED_MAX {
        return Some(format!("{} bytes are printed of {} problems", said.len(), all.len()));
    }
    // Line breaks of our own, and nothing else that moves a terminal.
    let is_control = |c: char| c.is_control() && c != '\n';
    if rendered.contains(is_control) {
        return Some("a control character is printed".to_owned());
    }
    said.contains(CANARY).then(|| "a value that may be a secret is printed".to_owned())
}

/// How many characters each line has; lines as YAML counts them.
fn widths(text: &str) -> Vec<usize> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    if widths.is_empty() { vec![0] } else { widths }
}

fn wrong_place(problem: &Problem, files: &[(&str, Vec<usize>)]) -> Option<String> {
    let Problem { file, line, column, code, message, help, .. } = problem;
    let said = |why: &str| Some(format!("{file}:{line}:{column}: {code}: {message}: {why}"));
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    if !is_code || message.is_empty() || help.is_empty() {
        return said("it lacks a code, a message or the way out");
    }
    let Some((_, widths)) = files.iter().find(|(name, _)| name == file) else { return said("it is in no file") };
    if (*line, *column) == (0, 0) && *code == "too-many-problems" {
        return None;
    }
    let Some(width) = line.checked_sub(1).and_then(|index| widths.get(index)) else {
        return said(&format!("the file has {} lines", widths.len()));
    };
    if (1..=width + 1).contains(column) { None } else { said(&format!("the line has {width} characters")) }
}

/// Whether another reader of YAML meets a key twice, or one at the top that isn't known.
pub(crate) fn repeats_a_key(text: &str, known: &[&str]) -> bool {
    match serde_saphyr::from_str::<Json>(text) {
        Ok(Json::Object(members)) => Json::Object(members).strict(known).is_none(),
        Ok(_) => false,
        Err(error) => error.to_string().contains("duplicate"),
    }
}
