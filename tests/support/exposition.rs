//! Reads OpenMetrics text as strictly as its specification allows: whatever is out of place is a failed test.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    /// Name with its suffix, labels, value.
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

impl Family {
    /// The value of the one series with this suffix and these labels.
    pub(crate) fn value(&self, suffix: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |found: &Labels| labels.iter().all(|(name, value)| found.get(*name).map(String::as_str) == Some(*value));
        let mut found = self.samples.iter().filter(|(name, with, _)| name.ends_with(suffix) && fits(with));
        let value = found.next().map(|(_, _, value)| *value);
        assert!(found.next().is_none(), "`{suffix}` {labels:?} fits several series");
        value
    }
}

/// All families by name.
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with `# EOF`");
    assert!(!body.contains("# EOF") && (body.is_empty() || body.ends_with('\n')), "lines end, and nothing follows the end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and a text");
            let new = Family { kind: String::new(), help: help.to_owned(), samples: Vec::new() };
            assert!(families.insert(name.to_owned(), new).is_none(), "`{name}` is described twice");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert_eq!(name, current, "a type stands with its own help");
            let family = families.get_mut(name).expect("help comes first");
            assert!(family.kind.is_empty() && family.samples.is_empty(), "`{name}` has one type, before its samples");
            kind.clone_into(&mut family.kind);
        } else {
            assert!(!line.starts_with('#'), "no other comments: {line}");
            let (name, labels, value) = sample(line);
            let family = families.get_mut(&current).expect("a family begins before its samples");
            let suffix = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("`{name}` stands below `{current}`"));
            let suffixes: &[&str] = match family.kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                other => panic!("`{current}` has the type `{other}`"),
            };
            assert!(suffixes.contains(&suffix), "`{name}` isn't the name of a {}", family.kind);
            assert!(seen.insert((name.clone(), labels.clone())), "twice: {line}");
            family.samples.push((name, labels, value));
        }
    }
    for (name, family) in &families {
        assert!(!family.help.trim().is_empty() && !family.kind.is_empty(), "`{name}` has help and a type");
        if family.kind == "histogram" {
            buckets_add_up(name, family);
        }
    }
    families
}

fn sample(line: &str) -> (String, Labels, f64) {
    let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).expect("a value");
    let (name, mut rest) = line.split_at(name_end);
    assert!(name.starts_with(|c: char| c.is_ascii_alphabetic()), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").expect("a label has a value in quotes");
            assert!(!label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            let (value, after) = quoted(after, line);
            assert!(labels.insert(label.to_owned(), value).is_none(), "a label twice: {line}");
            rest = after.strip_prefix(',').unwrap_or(after);
            assert!(after.starts_with(',') && !rest.starts_with('}') || after.starts_with('}'), "{line}");
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("one space before the value: {line}"));
    let number = value.parse().unwrap_or_else(|_| panic!("a number and nothing more: {line}"));
    (name.to_owned(), labels, number)
}

fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => panic!("an unknown escape: {line}"),
            },
            c => value.push(c),
        }
    }
    panic!("a quote without its end: {line}")
}

/// Buckets are cumulative, in order, and the last one holds all.
fn buckets_add_up(name: &str, family: &Family) {
    let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        if sample.ends_with("_bucket") {
            let mut rest = labels.clone();
            let bound = rest.remove("le").expect("a bucket has a bound");
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound is a number") };
            series.entry(rest).or_default().push((bound, *value));
        }
    }
    for (labels, buckets) in series {
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "`{name}` {labels:?}: {buckets:?}");
        let last = buckets.last().expect("it has buckets");
        let total = family.samples.iter().find(|(sample, with, _)| sample.ends_with("_count") && *with == labels);
        assert!(last.0.is_infinite() && Some(last.1) == total.map(|(_, _, value)| *value), "`{name}` {labels:?}: all are in the last");
    }
}
