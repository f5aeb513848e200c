//! The lists of AWS: many secrets with a call, by the beginnings of their names.

use std::collections::BTreeSet;

use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, SecretListEntry, SortByType, SortOrderType, Tag};

use super::calls::{CREDENTIAL_TAG, Calls, Refusal, labels};
use super::marks::Entry;
use super::secret::{CLEARED, CURRENT};
use crate::domain::ids::Name;

/// As many as AWS puts on a page.
const PAGE: i32 = 100;

/// One secret of a list.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) credential: Name,
    pub(super) labels: Vec<BTreeSet<String>>,
}

/// One page of what native readers find.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// What the next one is asked with.
    pub(super) next: Option<String>,
}

impl Calls {
    /// Our secrets whose names begin so, page by page.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Refusal> {
        let mut found = Vec::new();
        let mut page = None;
        loop {
            self.count();
            let asked = self.client.list_secrets().max_results(PAGE).set_next_token(page);
            let asked =
                asked.filters(filter(FilterNameStringType::Name, [prefix])).filters(filter(FilterNameStringType::TagKey, [CREDENTIAL_TAG]));
            let listed = asked.send().await.map_err(|error| Refusal::of(&error))?;
            for entry in listed.secret_list() {
                let credential = entry.tags().iter().find(|tag| tag.key() == Some(CREDENTIAL_TAG)).and_then(Tag::value);
                // AWS's filter doesn't mind capitals.
                let is_ours = entry.name().is_some_and(|name| name.starts_with(prefix)) && entry.deleted_date().is_none();
                if let Some(credential) = credential.filter(|_| is_ours).and_then(|name| name.parse().ok()) {
                    let labels = entry.secret_versions_to_stages().map(labels).unwrap_or_default().into_values().collect();
                    found.push(Listed { credential, labels });
                }
            }
            page = listed.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(found);
            }
        }
    }

    /// A page of all secrets below these places, of whomever, the last changed first where the server sorts. Nobody's read waits for
    /// it, so it waits for its turn.
    pub(super) async fn page(&self, places: &[String], page: Option<String>) -> Result<Page, Refusal> {
        self.turn().await?;
        let asked = self.client.list_secrets().max_results(PAGE).set_next_token(page);
        let asked = asked.sort_by(SortByType::LastChangedDate).sort_order(SortOrderType::Desc);
        let asked = asked.filters(filter(FilterNameStringType::Name, places.iter().map(String::as_str)));
        let listed = asked.send().await.map_err(|error| Refusal::of(&error))?;
        let entries = listed.secret_list().iter().filter_map(entry).collect();
        Ok(Page { entries, next: listed.next_token.filter(|token| !token.is_empty()) })
    }
}

fn filter<'a>(key: FilterNameStringType, values: impl IntoIterator<Item = &'a str>) -> Filter {
    Filter::builder().key(key).set_values(Some(values.into_iter().map(str::to_owned).collect())).build()
}

fn entry(entry: &SecretListEntry) -> Option<Entry> {
    let name = entry.name()?.to_owned();
    let labels = entry.secret_versions_to_stages().map(labels).unwrap_or_default();
    let is_current = |labels: &BTreeSet<String>| labels.contains(CURRENT) && !labels.contains(CLEARED);
    let current = labels.into_iter().find(|(_, labels)| is_current(labels)).map(|(id, _)| id);
    let changed = entry.last_changed_date().and_then(|at| at.to_millis().ok());
    Some(Entry { name, current: current.filter(|_| entry.deleted_date().is_none()), changed })
}
