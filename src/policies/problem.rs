//! Problems of documents: each with its place, a stable code and the way out; together with excerpts for people.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, renderer::DecorStyle};
use serde::Serialize;

use super::Source;
use super::tree;

/// Problems beyond this many aren't listed: whoever reads them has enough to do, and memory stays flat.
pub(crate) const PROBLEMS_MAX: usize = 1_000;

/// Characters of a line that an excerpt may have. Nobody reads a longer one, and a thousand problems of one line would print it a
/// thousand times.
const EXCERPT_CHARS_MAX: usize = 400;

/// Where something stands. Lines and columns count from one, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Index into the names of the [`Sink`].
    pub(crate) file: usize,
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// In characters, on the first line.
    pub(crate) width: usize,
}

/// One thing that is wrong. Holds nothing of a value that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 where the problem is the file itself.
    pub line: usize,
    /// From 1, in characters; 0 where the problem is the file itself.
    pub column: usize,
    /// A short slug that stays the same between releases.
    pub code: &'static str,
    pub message: String,
    /// The way out.
    pub help: String,
    #[serde(skip)]
    width: usize,
}

/// All problems of one reading, in the order of file, line and column; never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Problems {
    problems: Vec<Problem>,
    /// The lines that problems stand on, by file and line, with what may be a secret masked; none that is too long to be shown.
    lines: BTreeMap<(String, usize), String>,
}

/// Collects problems while documents are read: a reader reports and goes on.
pub(crate) struct Sink<'a> {
    sources: Vec<&'a Source>,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(sources: impl IntoIterator<Item = &'a Source>) -> Sink<'a> {
        Sink { sources: sources.into_iter().collect(), problems: RefCell::default() }
    }

    /// What was reported by another reader of the same sources.
    pub(crate) fn take_over(&self, problems: Vec<Problem>) {
        self.problems.borrow_mut().extend(problems);
    }

    /// How much was reported until now: what is built on a document waits until nothing is wrong with it.
    pub(crate) fn reported(&self) -> usize {
        self.problems.borrow().len()
    }

    pub(crate) fn into_reported(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    pub(crate) fn report(&self, at: Place, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        let file = self.file(at.file).to_owned();
        let (message, help) = (message.into(), help.into());
        let problem = Problem { file, line: at.line, column: at.column, code, message, help, width: at.width };
        self.problems.borrow_mut().push(problem);
    }

    pub(crate) fn file(&self, index: usize) -> &str {
        self.sources.get(index).map_or("", |source| source.file.as_str())
    }

    /// `file:line` of a place, for a help that names another document.
    pub(crate) fn locate(&self, place: Place) -> String {
        format!("{}:{}", self.file(place.file), place.line)
    }

    /// Nothing, if nothing was reported.
    pub(crate) fn finish(self) -> Result<(), Problems> {
        let problems = self.problems.into_inner();
        if problems.is_empty() { Ok(()) } else { Err(Problems::new(problems, &self.sources)) }
    }
}

impl Problem {
    /// A problem of a whole file, or of a path that can't be read.
    pub(crate) fn of_file(file: String, code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem { file, line: 0, column: 0, code, message: message.into(), help: help.into(), width: 0 }
    }
}

impl Problems {
    pub(crate) fn new(mut problems: Vec<Problem>, sources: &[&Source]) -> Problems {
        problems.sort();
        problems.dedup();
        let total = problems.len();
        problems.truncate(PROBLEMS_MAX);
        if let Some(last) = problems.last().filter(|_| total > PROBLEMS_MAX) {
            let message = format!("{} more problems aren't shown", total - PROBLEMS_MAX);
            problems.push(Problem::of_file(last.file.clone(), "too-many-problems", message, "mend the ones above first"));
        }
        let lines = excerpts(&problems, sources);
        Problems { problems, lines }
    }

    pub fn as_slice(&self) -> &[Problem] {
        &self.problems
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// Adds those of another reading.
    #[must_use]
    pub fn and(mut self, other: Problems) -> Problems {
        self.problems.extend(other.problems);
        self.problems.sort();
        self.lines.extend(other.lines);
        self
    }

    /// For a terminal: an excerpt under each problem, with what may be a secret masked.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let rendered: Vec<String> = self.problems.iter().map(|problem| self.render_one(problem, &renderer)).collect();
        let count = self.problems.len();
        format!("{}\n\n{count} {}\n", rendered.join("\n\n"), if count == 1 { "problem" } else { "problems" })
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(problem.message.as_str()).id(problem.code);
        let help = Level::HELP.message(problem.help.as_str());
        let Some(line) = self.lines.get(&(problem.file.clone(), problem.line)) else {
            let place = annotate_snippets::Origin::path(problem.file.as_str());
            let place = if problem.line > 0 { place.line(problem.line).char_column(problem.column) } else { place };
            return renderer.render(&[title.element(place).element(help)]);
        };
        let start = byte_of(line, problem.column - 1);
        let end = byte_of(line, problem.column - 1 + problem.width.max(1));
        let snippet = Snippet::source(line.as_str())
            .line_start(problem.line)
            .path(problem.file.as_str())
            .annotation(AnnotationKind::Primary.span(start..end));
        renderer.render(&[title.element(snippet).element(help)])
    }
}

/// One line per problem, as `file:line:column: code: message`: for a log.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { file, line, column, code, message, .. }) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{file}:{line}:{column}: {code}: {message}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.problems).finish()
    }
}

impl std::error::Error for Problems {}

/// As `check --json` prints it: `{"problems": […]}`.
impl Serialize for Problems {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("problems", &self.problems)?;
        map.end()
    }
}

fn excerpts(problems: &[Problem], sources: &[&Source]) -> BTreeMap<(String, usize), String> {
    let mut lines = BTreeMap::new();
    for source in sources {
        let mut wanted: Vec<&Problem> = problems.iter().filter(|p| p.file == source.file && p.line > 0).collect();
        wanted.sort();
        let mut wanted = wanted.into_iter().peekable();
        for (index, line) in tree::lines(&source.text).map(|line| line.trim_end_matches(['\r', '\n'])).enumerate() {
            while let Some(problem) = wanted.next_if(|problem| problem.line == index + 1) {
                if line.chars().nth(EXCERPT_CHARS_MAX).is_some() {
                    continue;
                }
                let masked = lines.entry((problem.file.clone(), problem.line)).or_insert_with(|| mask_words(line));
                // What an unknown field or a broken line holds is unknown too: nothing after it is shown.
                // A token may stand where its hash belongs.
                match problem.code {
                    "unknown-field" | "syntax" => *masked = mask_from(masked, problem.column - 1 + problem.width),
                    "bad-hash" => *masked = mask_from(masked, problem.column - 1),
                    _ => {}
                }
            }
        }
    }
    lines
}

/// Replaces everything from a column on, character by character, so that columns stay what they are.
fn mask_from(line: &str, column: usize) -> String {
    line.chars().enumerate().map(|(at, c)| if at >= column && !c.is_whitespace() && c != ':' { '*' } else { c }).collect()
}

/// Masks what may be a secret. A piece with quotes, escapes or other characters within that no word of a document has is masked
/// whole: between those a secret may look like short, plain words.
fn mask_words(line: &str) -> String {
    line.split_inclusive(char::is_whitespace).map(mask_piece).collect()
}

fn mask_piece(piece: &str) -> String {
    let around = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '{' | '}' | '[' | ']' | ',' | ':' | '-');
    let within = piece.trim_matches(around);
    if within.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '%' | '&' | '`')) {
        return mask_short_words(piece);
    }
    piece
        .chars()
        .map(|c| {
            if around(c) && !c.is_control() {
                c
            } else if c.is_control() {
                ' '
            } else {
                '*'
            }
        })
        .collect()
}

fn mask_short_words(line: &str) -> String {
    let is_word = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '{' | '}' | '[' | ']' | ',' | ':' | '/' | '.');
    let mut out = String::with_capacity(line.len());
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        if looks_secret(word) {
            out.extend(word.chars().map(|_| '*'));
        } else {
            out.push_str(word);
        }
        word.clear();
    };
    for c in line.chars() {
        if is_word(c) {
            word.push(c);
        } else {
            flush(&mut word, &mut out);
            out.push(if c.is_control() { ' ' } else { c });
        }
    }
    flush(&mut word, &mut out);
    out
}

/// Whether a word may be key material: long, without the hyphens of a name, and with digits or mixed case.
pub(crate) fn looks_secret(word: &str) -> bool {
    let longest = word.split('-').map(str::len).max().unwrap_or(0);
    let has = |test: fn(&char) -> bool| word.chars().any(|c| test(&c));
    let upper = word.chars().filter(char::is_ascii_uppercase).count();
    // Words that are written together have a capital each; in chance, every second letter is one.
    let scattered = 3 * upper >= longest;
    let mixed = upper > 0 && has(char::is_ascii_lowercase) && (scattered || word.contains(['+', '=', '_', '/']));
    longest >= 12 && (has(char::is_ascii_digit) || mixed) || word.len() > 63
}

/// A name in backquotes, or a word for it where the name may be a secret in the wrong place.
pub(crate) fn shown(name: &str) -> String {
    let plain = name.len() <= 63 && name.bytes().all(|b| b.is_ascii_graphic() && b != b'`');
    if plain && !looks_secret(name) { format!("`{name}`") } else { "of this name".to_owned() }
}

fn byte_of(line: &str, column: usize) -> usize {
    line.char_indices().nth(column).map_or(line.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_shows_words_and_no_pasted_secret() {
        for plain in [
            "  maxAge: 3mo",
            "spec: {maxAge: 24h, overlap: 24h}",
            "  credentials: [dinie-sandbox, dinie-production]",
            "  endpoints: {callback: \"http://payments.example.com/callback\"}",
            "    - {cron: \"0 9 * * 1-5\", timezone: America/Sao_Paulo, open: 8h}",
            "  acceptUndetermined: aCamelCaseWord",
        ] {
            assert_eq!(mask_words(plain), plain);
        }
        for secret in [
            "Zq8hT0bWvX2a",
            "qWeRtYuIoPaS",
            "abc\\\"deF\\\\ghi'jkl\\\"",
            "a1b%c2d%25e3f&g4h",
            "ключотпроизводства",
            "{\\\"inner\\\":\\\"value\\\"}",
            "abc\\0def\\0ghi\\0",
        ] {
            for line in [format!("  maxAge: \"{secret}\""), format!("spec: {{maxAge: {secret}, overlap: 24h}}")] {
                let masked = mask_words(&line);
                assert_eq!(masked.chars().count(), line.chars().count(), "columns stay what they are: {masked}");
                let shown = |part: &[char]| masked.contains(&part.iter().collect::<String>());
                let secret: Vec<char> = secret.chars().collect();
                assert!(!secret.windows(8).any(shown) && masked.contains("maxAge"), "{masked}");
            }
        }
    }
}
