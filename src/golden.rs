//! Golden files: what is printed and served, as it was reviewed. `KEYWRIGHT_GOLDEN=renew` writes them anew, for the diff.

use std::path::Path;

use serde_json::Value;

/// JSON that people can review: whatever fits into a line stands on one.
pub(crate) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, 0, &mut out);
    out + "\n"
}

fn write(value: &Value, depth: usize, before: usize, out: &mut String) {
    let line = value.to_string();
    let (pairs, brackets): (Vec<(String, &Value)>, _) = match value {
        Value::Object(members) => {
            (members.iter().map(|(name, value)| (format!("{}: ", Value::from(name.as_str())), value)).collect(), ["{", "}"])
        }
        Value::Array(items) => (items.iter().map(|item| (String::new(), item)).collect(), ["[", "]"]),
        _ => return out.push_str(&line),
    };
    if depth * 2 + before + line.len() <= 120 {
        return out.push_str(&line);
    }
    out.push_str(brackets[0]);
    let count = pairs.len();
    for (index, (head, value)) in pairs.into_iter().enumerate() {
        out.push_str(&format!("\n{:1$}{head}", "", depth * 2 + 2));
        write(value, depth + 1, head.len(), out);
        out.push_str(if index + 1 < count { "," } else { "" });
    }
    out.push_str(&format!("\n{:1$}{2}", "", depth * 2, brackets[1]));
}

/// Fails unless this is, byte for byte, what stands in the file below `tests/golden`.
#[track_caller]
pub(crate) fn assert(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var("KEYWRIGHT_GOLDEN").is_ok_and(|word| word == "renew") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = known.lines().zip(text.lines()).position(|(known, now)| known != now);
    let line = differing.unwrap_or_else(|| known.lines().count().min(text.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
    assert!(
        known == text,
        "tests/golden/{file} differs in line {}:\n  known: {}\n  now:   {}\nIf that is wanted: KEYWRIGHT_GOLDEN=renew, and review the diff.",
        line + 1,
        at(&known),
        at(text)
    );
}
