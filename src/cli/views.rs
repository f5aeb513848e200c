//! The daemon's answers, as far as the tables show them. What is unknown here is passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::Client;
use super::failure::Failure;
use super::terminal::printable;

/// The API's own limit for one page.
const PAGE_LENGTH: usize = 1000;
/// No installation has a million credentials: a daemon that never stops paging is broken.
const PAGES_MAX: usize = 1000;

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct CredentialView {
    pub(super) name: String,
    pub(super) provider: String,
    pub(super) account: String,
    pub(super) environment: String,
    pub(super) endpoint: Option<String>,
    pub(super) proof: Option<ProofView>,
    pub(super) version: Option<String>,
    pub(super) previous_version: Option<String>,
    pub(super) phase: String,
    pub(super) generation: u64,
    pub(super) issued_at: Option<jiff::Timestamp>,
    pub(super) age_seconds: Option<i64>,
    pub(super) due_at: Option<jiff::Timestamp>,
    pub(super) deadline_at: Option<jiff::Timestamp>,
    pub(super) overlap_ends_at: Option<jiff::Timestamp>,
    pub(super) reason: Option<String>,
    pub(super) paused: bool,
    pub(super) paused_since: Option<jiff::Timestamp>,
    pub(super) incident: Option<IncidentView>,
    pub(super) request: Option<RequestView>,
    pub(super) applications: Vec<ApplicationView>,
}

/// What a person is asked for.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct RequestView {
    pub(super) asks: String,
    pub(super) opened_at: Option<jiff::Timestamp>,
    pub(super) deadline_at: Option<jiff::Timestamp>,
    pub(super) urgency: String,
    pub(super) reminders: u32,
    pub(super) instructions: Vec<String>,
}

impl RequestView {
    pub(super) fn wants_a_key(&self) -> bool {
        self.asks == "new-key"
    }

    /// What is asked, and the steps, numbered.
    pub(super) fn lines(&self) -> Vec<String> {
        let what = if self.wants_a_key() { "a new key" } else { "the removal of the old key" };
        let by = super::status::moment(self.deadline_at);
        let first = format!("{what}, by {by} UTC ({})", printable(&self.urgency));
        let steps = self.instructions.iter().zip(1..).map(|(step, number)| format!("{number}. {}", printable(step)));
        std::iter::once(first).chain(steps).collect()
    }
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct IncidentView {
    pub(super) since: Option<jiff::Timestamp>,
    pub(super) limit_at: Option<jiff::Timestamp>,
    pub(super) version: Option<String>,
    pub(super) revoked_at: Option<jiff::Timestamp>,
    pub(super) closure: Option<String>,
    pub(super) holders: Vec<HolderView>,
    pub(super) stragglers: Vec<HolderView>,
    pub(super) unknown_keys: Option<Vec<String>>,
    pub(super) closed_at: Option<jiff::Timestamp>,
}

/// Who holds an old key: an instance, or an application that was never seen.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct HolderView {
    pub(super) application: String,
    pub(super) instance: Option<String>,
}

impl HolderView {
    pub(super) fn text(&self) -> String {
        match &self.instance {
            Some(instance) => format!("{}/{instance}", self.application),
            None => format!("{} (never seen)", self.application),
        }
    }
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct ProofView {
    pub(super) verdict: String,
    pub(super) evidence: Vec<EvidenceView>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct EvidenceView {
    pub(super) kind: String,
    pub(super) says: String,
    pub(super) why: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct ApplicationView {
    pub(super) name: String,
    pub(super) instance: Option<String>,
    pub(super) version: Option<String>,
    pub(super) state: Option<String>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ProblemView {
    pub(super) credential: Option<String>,
    pub(super) code: String,
    pub(super) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StatusView {
    pub(super) credentials: Vec<CredentialView>,
    pub(super) problems: Vec<ProblemView>,
    /// Where there are several replicas.
    pub(super) leadership: Option<LeadershipView>,
}

/// Who leads, as the replica that was asked knows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LeadershipView {
    pub(super) leads: bool,
    pub(super) leader: Option<String>,
    pub(super) term: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PlanView {
    pub(super) plan: Vec<PlanEntryView>,
    pub(super) herds: Vec<HerdView>,
    pub(super) uncounted: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct HerdView {
    pub(super) account: String,
    pub(super) day: Option<jiff::civil::Date>,
    pub(super) starts: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PlanEntryView {
    pub(super) name: String,
    pub(super) starts_at: Option<jiff::Timestamp>,
    pub(super) deadline_at: Option<jiff::Timestamp>,
    pub(super) reason: String,
    pub(super) blocked_by: Vec<String>,
}

/// A document that comes in pages, put together: the arrays of all pages, each entry once.
#[derive(Debug, Default, Serialize)]
pub(super) struct Pages(serde_json::Map<String, Value>);

impl Pages {
    /// # Errors
    /// [`Failure`] as the daemon answers.
    pub(super) async fn fetch(client: &Client, path: &str) -> Result<Pages, Failure> {
        let mut whole = Pages::default();
        let mut after: Option<String> = None;
        let joint = if path.contains('?') { '&' } else { '?' };
        for _ in 0..PAGES_MAX {
            let cursor = after.map(|name| format!("&after={name}")).unwrap_or_default();
            let page: serde_json::Map<String, Value> = client.document(&format!("{path}{joint}limit={PAGE_LENGTH}{cursor}")).await?;
            after = page.get("next").and_then(Value::as_str).map(str::to_owned);
            whole.append(page);
            if after.is_none() {
                break;
            }
        }
        Ok(whole)
    }

    /// A document that comes whole.
    pub(super) async fn one(client: &Client, path: &str) -> Result<Pages, Failure> {
        Ok(Pages(client.document(path).await?))
    }

    fn append(&mut self, page: serde_json::Map<String, Value>) {
        for (name, value) in page {
            match (self.0.get_mut(&name), value) {
                // Nothing comes after the whole; the member stays where the daemon has it.
                _ if name == "next" => drop(self.0.insert(name, Value::Null)),
                (Some(Value::Array(all)), Value::Array(more)) => {
                    // Problems of the daemon itself stand on every page; everything else stands on one.
                    let is_new = |entry: &Value| name != "problems" || !all.contains(entry);
                    let new: Vec<Value> = more.into_iter().filter(is_new).collect();
                    all.extend(new);
                }
                (_, value) => {
                    self.0.insert(name, value);
                }
            }
        }
    }

    /// One account and day that stands on several pages becomes one row.
    pub(super) fn add_up_herds(&mut self) {
        let Some(Value::Array(rows)) = self.0.get_mut("herds") else { return };
        let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
        for row in rows.iter() {
            let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            *sums.entry((text("account"), text("day"))).or_default() += row.get("starts").and_then(Value::as_u64).unwrap_or(0);
        }
        let sum = |((account, day), starts)| serde_json::json!({"account": account, "day": day, "starts": starts});
        *rows = sums.into_iter().map(sum).collect();
    }

    pub(super) fn view<T: serde::de::DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_value(Value::Object(self.0.clone())).map_err(|_| {
            Failure::failed("no-answer", "the daemon didn't answer clearly", "the answer isn't the document that was expected")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_herds_of_several_pages_are_added_up() {
        let mut pages = Pages::default();
        for text in [
            r#"{"plan":[],"herds":[{"account":"a","day":"2027-01-01","starts":2},{"account":"b","day":"2027-01-01","starts":1}],"next":"x"}"#,
            r#"{"plan":[],"herds":[{"account":"a","day":"2027-01-01","starts":3},{"account":"a","day":"2027-01-02","starts":1}],"next":null}"#,
        ] {
            pages.append(serde_json::from_str(text).unwrap());
        }
        pages.add_up_herds();
        let view: PlanView = pages.view().unwrap();
        let rows: Vec<String> = view.herds.iter().map(|row| format!("{} {} {}", row.account, row.day.unwrap(), row.starts)).collect();
        assert_eq!(rows, ["a 2027-01-01 5", "a 2027-01-02 1", "b 2027-01-01 1"]);
    }

    #[test]
    fn cli_pages_are_put_together_without_repeating_problems() {
        let mut pages = Pages::default();
        for text in [
            r#"{"credentials":[{"name":"a"}],"problems":[{"code":"policies-invalid","message":"m"}],"next":"a"}"#,
            r#"{"credentials":[{"name":"b"}],"problems":[{"code":"policies-invalid","message":"m"}]}"#,
        ] {
            pages.append(serde_json::from_str(text).unwrap());
        }
        let view: StatusView = pages.view().unwrap();
        assert_eq!(view.credentials.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(view.problems.len(), 1);
        assert!(serde_json::to_string(&pages).unwrap().contains("\"next\":null"));
    }
}
