//! All keys of an account, page by page. A list that isn't certainly whole is an error.

use std::collections::BTreeSet;

use serde_json::Value;

use super::reply::{id_text, time};
use super::request::{Extras, Signer};
use super::{DeclarativeIssuer, refusal};
use crate::domain::ids::KeyId;
use crate::domain::material::Material;
use crate::domain::provider::{List, ListedKey, Meaning, Paging, SignedCall};
use crate::issuers::{IssuerError, Target};

/// More pages than that are no account but a loop.
const PAGES_MAX: usize = 1000;

const NO_END: IssuerError = IssuerError::Unclear("the pages of the list don't come to an end");
const NO_PROGRESS: IssuerError = IssuerError::Unclear("the pages of the list repeat themselves");
const NO_CURSOR: IssuerError = IssuerError::Unclear("it doesn't say where the list goes on");

impl DeclarativeIssuer {
    pub(super) async fn list_all(&self, target: &Target, acting: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        let pages = tokio::time::timeout(self.list_timeout, self.all_pages(target, acting));
        pages.await.unwrap_or(Err(NO_END))
    }

    /// The documentation of a provider doesn't always say which member the cursor is: those that it may be are tried in turn.
    async fn all_pages(&self, target: &Target, acting: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        let list = target.provider.calls.list.as_ref().ok_or(IssuerError::Impossible("the provider can't list"))?;
        let administrator = target.administrator_for(SignedCall::List);
        let token = self.token_for(target, &list.call, acting, administrator).await?;
        let signer = Signer { acting, subject: None, token: token.as_ref(), administrator };
        let first = self.page(target, list, signer, Extras::default()).await?;
        let Some(paging) = list.paging.as_ref().filter(|_| first.more) else { return Ok(first.keys) };
        let mut outcome = Err(NO_PROGRESS);
        for (place, cursor) in paging.cursors.iter().enumerate() {
            let way = Way { paging, cursor, is_last: place + 1 == paging.cursors.len() };
            outcome = self.pages_after(target, list, signer, &first, &way).await;
            if !matches!(outcome, Err(NO_PROGRESS | NO_CURSOR | IssuerError::Refused { .. })) {
                break;
            }
        }
        outcome
    }

    async fn pages_after(
        &self,
        target: &Target,
        list: &List,
        signer: Signer<'_>,
        first: &Page,
        way: &Way<'_>,
    ) -> Result<Vec<ListedKey>, IssuerError> {
        let mut keys = first.keys.clone();
        let mut seen: BTreeSet<KeyId> = keys.iter().map(|key| key.key_id.clone()).collect();
        let mut last = first.last.clone();
        for _ in 1..PAGES_MAX {
            let extras = Extras { query: vec![(way.paging.parameter.clone(), way.cursor_of(last.as_ref())?)], ..Extras::default() };
            let page = self.page(target, list, signer, extras).await?;
            // The keys that were announced may be gone by now. Or the cursor isn't what the provider goes by.
            if page.keys.is_empty() && !way.is_last {
                return Err(NO_PROGRESS);
            }
            for key in &page.keys {
                if !seen.insert(key.key_id.clone()) {
                    return Err(NO_PROGRESS);
                }
            }
            keys.extend(page.keys);
            if !page.more {
                return Ok(keys);
            }
            last = page.last;
        }
        Err(NO_END)
    }

    async fn page(&self, target: &Target, list: &List, signer: Signer<'_>, extras: Extras) -> Result<Page, IssuerError> {
        let reply = self.ask(target, "list", &list.call, signer, extras).await?;
        match reply.meaning(&list.call.rules) {
            Meaning::Works => Page::read(list, reply.json()?),
            other => Err(refusal(&reply, other, target, signer.signed_by(&list.call))),
        }
    }
}

pub(super) struct Page {
    pub(super) keys: Vec<ListedKey>,
    more: bool,
    /// The item that a cursor is taken from.
    last: Option<Value>,
}

/// How the next page is asked for.
struct Way<'a> {
    paging: &'a Paging,
    cursor: &'a str,
    is_last: bool,
}

impl Page {
    pub(super) fn read(list: &List, json: &Value) -> Result<Page, IssuerError> {
        let items = json.pointer(&list.items).and_then(Value::as_array).ok_or(IssuerError::Unclear("it holds no list"))?;
        let keys = items.iter().map(|item| listed(list, item)).collect::<Result<Vec<_>, _>>()?;
        let mut ids = BTreeSet::new();
        if !keys.iter().all(|key| ids.insert(&key.key_id)) {
            return Err(NO_PROGRESS);
        }
        let more = list.paging.as_ref().map(|paging| goes_on(paging, json)).transpose()?.unwrap_or(false);
        Ok(Page { more, last: items.last().cloned(), keys })
    }
}

fn goes_on(paging: &Paging, json: &Value) -> Result<bool, IssuerError> {
    let more = json.pointer(&paging.more).and_then(Value::as_bool);
    more.ok_or(IssuerError::Unclear("it doesn't say whether the list goes on"))
}

impl Way<'_> {
    fn cursor_of(&self, last: Option<&Value>) -> Result<String, IssuerError> {
        let cursor = last.ok_or(NO_PROGRESS)?.pointer(self.cursor).and_then(id_text);
        cursor.filter(|text| !text.is_empty()).ok_or(NO_CURSOR)
    }
}

fn listed(list: &List, item: &Value) -> Result<ListedKey, IssuerError> {
    let key_id: Option<KeyId> = item.pointer(&list.key_id).and_then(id_text).and_then(|text| text.parse().ok());
    Ok(ListedKey {
        key_id: key_id.ok_or(IssuerError::Unclear("a key of the list has no id"))?,
        name: name_of(list, item)?,
        alive: is_alive(list, item)?,
        // For people only: a time that can't be read must not hide the key.
        issued_at: time(item, list.issued_at.as_deref()).unwrap_or(None),
        expires_at: time(item, list.expires_at.as_deref()).unwrap_or(None),
    })
}

/// Somebody else's key may have no name; ours always has.
fn name_of(list: &List, item: &Value) -> Result<Option<String>, IssuerError> {
    match list.marker.as_deref().and_then(|pointer| item.pointer(pointer)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok(Some(name.clone())),
        Some(_) => Err(IssuerError::Unclear("the name of a key is no text")),
    }
}

fn is_alive(list: &List, item: &Value) -> Result<bool, IssuerError> {
    let Some((pointer, values)) = &list.alive else { return Ok(true) };
    let state = match item.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => return Err(IssuerError::Unclear("a key of the list doesn't say whether it lives")),
    };
    Ok(values.contains(&state))
}
