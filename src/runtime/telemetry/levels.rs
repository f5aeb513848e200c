//! Which of our own targets log at which level. Other targets have no level.

use tracing::Level;
use tracing::level_filters::LevelFilter;

const OURS: &str = "keywright";

/// The levels of our targets, as `RUST_LOG` writes them: `debug`, `keywright::engine=trace,info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    rest: LevelFilter,
    /// Of these the longest that fits decides.
    targets: Vec<(String, LevelFilter)>,
}

impl Default for Levels {
    fn default() -> Levels {
        Levels { rest: LevelFilter::INFO, targets: Vec::new() }
    }
}

impl Levels {
    /// What isn't understood, or isn't about our targets, is as if it weren't there: a wrong word must not end a daemon, nor
    /// make it talk.
    pub fn parse(text: Option<&str>) -> Levels {
        let mut levels = Levels::default();
        for directive in text.unwrap_or_default().split(',').map(str::trim) {
            match directive.split_once('=') {
                Some((target, level)) if is_ours(target) => {
                    if let Ok(level) = level.parse() {
                        levels.targets.push((target.to_owned(), level));
                    }
                }
                Some(_) => {}
                None if is_ours(directive) => levels.targets.push((directive.to_owned(), LevelFilter::TRACE)),
                None => levels.rest = directive.parse().ok().filter(|_| !directive.is_empty()).unwrap_or(levels.rest),
            }
        }
        levels
    }

    pub(super) fn allow(&self, target: &str, level: Level) -> bool {
        if !is_ours(target) {
            return false;
        }
        let nearest = self.targets.iter().filter(|(prefix, _)| is_within(target, prefix)).max_by_key(|(prefix, _)| prefix.len());
        level <= nearest.map_or(self.rest, |(_, level)| *level)
    }

    pub(super) fn most(&self) -> LevelFilter {
        self.targets.iter().map(|(_, level)| *level).chain([self.rest]).max().unwrap_or(self.rest)
    }
}

fn is_ours(target: &str) -> bool {
    is_within(target, OURS)
}

/// The module itself, or one in it; not one whose name only begins alike.
fn is_within(target: &str, module: &str) -> bool {
    target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}
