//! The report for a ticket: tables as GitHub writes them, with nothing in a cell that could be more than text.

use std::fmt::Write as _;

use super::super::status::moment;
use super::super::terminal::printable;
use super::view::{ItemView, ListView};

/// What every report begins with.
pub(super) const TITLE: &str = "# Going live: ";

pub(in crate::cli) fn text(view: &ListView) -> String {
    let count = |state: &str| view.items.iter().filter(|item| item.state == state).count();
    let mut out = format!("{TITLE}{}\n\n", escaped(&view.application));
    let verdict = if view.ready { "**Ready**" } else { "**Not ready**" };
    let _ = writeln!(
        out,
        "{verdict}: {} passed, {} confirmed, {} failed, {} left to a person. Environment: {}.",
        count("passed"),
        count("confirmed"),
        count("failed"),
        count("needs-person"),
        escaped(&view.environment)
    );
    let of = |name: Option<&str>| -> Vec<&ItemView> { view.items.iter().filter(|item| item.credential.as_deref() == name).collect() };
    table("The application", &of(None), &mut out);
    for credential in &view.credentials {
        let title = format!("{} ({}, {})", escaped(&credential.name), escaped(&credential.provider), escaped(&credential.environment));
        table(&title, &of(Some(&credential.name)), &mut out);
    }
    out
}

fn table(title: &str, items: &[&ItemView], out: &mut String) {
    if items.is_empty() {
        return;
    }
    let _ = write!(out, "\n## {title}\n\n| State | Item | What | Evidence | Confirmed | Source |\n|---|---|---|---|---|---|\n");
    for item in items {
        let evidence: Vec<String> = item.evidence.iter().map(|text| escaped(text)).collect();
        let source = format!("{} ({})", escaped(&item.source), escaped(&item.confidence));
        let cells = [mark(&item.state), escaped(&item.id), escaped(&item.title), evidence.join("<br>"), confirmed(item), source];
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
}

fn mark(state: &str) -> String {
    match state {
        "needs-person" => "**needs a person**".to_owned(),
        "failed" => "**failed**".to_owned(),
        other => escaped(other),
    }
}

fn confirmed(item: &ItemView) -> String {
    let Some(confirmation) = &item.confirmation else { return String::new() };
    let mut text = format!("{}, {} UTC", escaped(&confirmation.by), moment(confirmation.at));
    if let Some(reason) = &confirmation.reason {
        let _ = write!(text, "<br>{}", escaped(reason));
    }
    if confirmation.outdated {
        text.push_str("<br>changed since");
    }
    text
}

/// What Markdown and HTML would read as more than text is escaped: a cell stays a cell, and nothing in it becomes a link.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '@' => out.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '!' | '|' | '~' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.replace("://", "&#58;//").replace("www.", "www&#46;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_golive_reports_hold_text_and_nothing_else() {
        let hostile = "a|b\n| x | <img src=x> [l](https://evil.example) www.evil.example @all #1 **b** `c` \\| \u{1b}[31m";
        let item = ItemView {
            id: "pay.x".to_owned(),
            title: hostile.to_owned(),
            state: "passed".to_owned(),
            evidence: vec![hostile.to_owned()],
            source: hostile.to_owned(),
            ..ItemView::default()
        };
        let text = text(&ListView { application: "a".to_owned(), items: vec![item], ..ListView::default() });
        let row = text.lines().find(|line| line.contains("pay.x")).unwrap();
        let bare = |c: char| row.match_indices(c).filter(|(at, _)| !row[..*at].ends_with('\\')).count();
        assert_eq!(bare('|'), 7, "six cells: {row}");
        for (made, allowed) in [("<img", 0), ("https:", 0), ("www.", 0), ("@all", 0), ("\u{1b}", 0), ("<br>", 0)] {
            assert_eq!(row.matches(made).count(), allowed, "{made}: {row}");
        }
        assert_eq!((bare('*'), bare('`'), bare('[')), (0, 0, 0), "{row}");
    }
}
