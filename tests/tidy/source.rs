//! Rust source as the checks see it: without comments, without the insides of texts, with test code told apart.

use std::path::{Path, PathBuf};

/// One file below `src`.
pub(crate) struct Source {
    /// `domain/due.rs`
    pub(crate) path: String,
    pub(crate) text: String,
    /// The same lines, with comments and the insides of texts blanked, and without test code.
    pub(crate) code: String,
    /// Mounted under `#[cfg(test)]`, itself or a module above it.
    pub(crate) is_test: bool,
}

impl Source {
    /// `domain/due.rs` is `["domain", "due"]`, and so is `domain/due/mod.rs`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let stem = self.path.trim_end_matches(".rs");
        let stem = stem.strip_suffix("/mod").unwrap_or(stem);
        stem.split('/').filter(|part| !matches!(*part, "lib" | "main")).collect()
    }
}

/// All files below a folder.
pub(crate) fn read_all(folder: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    collect(folder, &mut found);
    let named = found.iter().map(|path| {
        let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    });
    sources(named.collect())
}

pub(crate) fn sources(mut files: Vec<(String, String)>) -> Vec<Source> {
    files.sort();
    let mut sources: Vec<Source> =
        files.into_iter().map(|(path, text)| Source { path, code: without_tests(&blank(&text)), text, is_test: false }).collect();
    let mounted: Vec<Vec<String>> = sources.iter().flat_map(test_mounts).collect();
    for source in &mut sources {
        let module: Vec<String> = source.module().iter().map(|part| (*part).to_owned()).collect();
        source.is_test = mounted.iter().any(|mount| module.starts_with(mount));
    }
    sources
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Modules that a file mounts by `#[cfg(test)] mod name;`.
fn test_mounts(source: &Source) -> Vec<Vec<String>> {
    let blanked = blank(&source.text);
    let mut mounts = Vec::new();
    for (at, _) in blanked.match_indices("#[cfg(test)]") {
        let rest = blanked[at + "#[cfg(test)]".len()..].trim_start();
        let declaration = rest.split(['{', ';']).next().unwrap_or_default();
        if let (Some(name), true) =
            (declaration.split_once("mod ").map(|(_, name)| name.trim()), rest[declaration.len()..].starts_with(';'))
        {
            mounts.push(source.module().iter().map(|part| (*part).to_owned()).chain([name.to_owned()]).collect());
        }
    }
    mounts
}

/// Blanks every item under `#[cfg(test)]`, up to its closing brace or semicolon.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(at) = out.find("#[cfg(test)]") {
        let end = item_end(&out, at + "#[cfg(test)]".len());
        let blanked: String = out[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(at..end, &blanked);
    }
    out
}

/// Where the item that begins here ends: behind its closing brace, or its semicolon.
pub(crate) fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in code[from..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && c == '}' {
                    return from + offset + 1;
                }
            }
            ';' if depth == 0 => return from + offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// Replaces comments, and what stands within quotes, by spaces. Keeps lines and lengths.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = blank_end(bytes, at);
        out[at..end.max(at)].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end.max(at + 1);
    }
    String::from_utf8(out).unwrap()
}

/// Where the comment or text that begins here ends; here, if none does.
fn blank_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let before = at.checked_sub(1).map(|before| bytes[before]);
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let find =
        |from: usize, needle: &[u8]| rest[from..].windows(needle.len()).position(|window| window == needle).map(|found| from + found);
    let length = match rest {
        [b'/', b'/', ..] => find(0, b"\n").unwrap_or(rest.len()),
        [b'/', b'*', ..] => find(2, b"*/").map_or(rest.len(), |end| end + 2),
        [b'r', b'"' | b'#', ..] if !in_word || before == Some(b'b') => raw_length(rest),
        [b'"', ..] => quoted_length(rest, b'"'),
        [b'\'', b'\\', ..] => quoted_length(rest, b'\''),
        // A character, not a lifetime: one character, then the closing quote.
        [b'\'', ..] => {
            let width = std::str::from_utf8(&rest[1..rest.len().min(5)]).map_or_else(|error| error.valid_up_to(), str::len);
            let first = std::str::from_utf8(&rest[1..=width]).ok().and_then(|text| text.chars().next()).map_or(1, char::len_utf8);
            if rest.get(1 + first) == Some(&b'\'') { first + 2 } else { 0 }
        }
        _ => 0,
    };
    at + length
}

fn raw_length(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = 2 + hashes;
    let end = rest[body..].windows(closing.len()).position(|window| window == closing);
    end.map_or(rest.len(), |end| body + end + closing.len())
}

fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

#[test]
fn texts_and_comments_are_blanked_and_nothing_else() {
    for (text, code) in [
        ("a // b", "a     "),
        ("a /* b */ c", "a         c"),
        (r#"f("x{")"#, "f(    )"),
        (r#"f("\"{")"#, "f(     )"),
        ("f('{', 'a)", "f(   , 'a)"),
        (r"f('\'')", "f(    )"),
        ("r#\"{\"# }", "       }"),
        ("for r in x", "for r in x"),
        ("'é' {", "     {"),
    ] {
        assert_eq!(blank(text), code, "{text}");
    }
}

#[test]
fn test_code_is_told_apart() {
    let files = [
        ("a.rs", "//! A.\nfn live() {}\n#[cfg(test)]\nmod tests;\n"),
        ("a/tests.rs", "//! T.\n"),
        ("a/tests/deep.rs", "//! T.\n"),
        ("b.rs", "//! B.\n#[cfg(test)]\nmod tests { fn hidden() {} }\nfn seen() {}\n"),
    ];
    let all = sources(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect());
    let tests: Vec<&str> = all.iter().filter(|source| source.is_test).map(|source| source.path.as_str()).collect();
    assert_eq!(tests, ["a/tests.rs", "a/tests/deep.rs"]);
    let b = all.iter().find(|source| source.path == "b.rs").unwrap();
    assert!(b.code.contains("seen") && !b.code.contains("hidden"));
}
