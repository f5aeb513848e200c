//! All keys of an account, page by page. A list that isn't certainly whole is an error.

use std::collections::BTreeSet;

use serde_json::Value;

use super::reply::{id_text, time};
use super::request::{Extras, Signer};
use super::{DeclarativeIssuer, refusal};
use crate::domain::ids::KeyId;
use crate::domain::material::Material;
use crate::domain::provider::{List, ListedKey, Meaning, Paging};
use crate::issuers::{IssuerError, Target};

/// More pages than that are no account but a loop.
const PAGES_MAX: usize = 1000;

const NO_PROGRESS: IssuerError = IssuerError::Unclear("the pages of the list don't come to an end");

impl DeclarativeIssuer {
    pub(super) async fn list_all(&self, target: &Target, acting: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        let pages = tokio::time::timeout(self.list_timeout, self.all_pages(target, acting));
        pages.await.unwrap_or(Err(NO_PROGRESS))
    }

    async fn all_pages(&self, target: &Target, acting: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        let list = target.provider.calls.list.as_ref().ok_or(IssuerError::Impossible("the provider can't list"))?;
        let token = self.token_for(target, &list.call, acting).await?;
        let signer = Signer { acting, subject: None, token: token.as_ref() };
        let (mut keys, mut seen) = (Vec::new(), BTreeSet::new());
        let mut cursor: Option<(String, String)> = None;
        for _ in 0..PAGES_MAX {
            let extras = Extras { query: cursor.take().into_iter().collect(), ..Extras::default() };
            let reply = self.call(target, "list", &list.call, signer, extras).await?;
            match reply.meaning(&list.call.rules) {
                Meaning::Works => {}
                other => return Err(refusal(&reply, other, target)),
            }
            let page = Page::read(list, reply.json()?)?;
            for key in &page.keys {
                if !seen.insert(key.key_id.clone()) {
                    return Err(NO_PROGRESS);
                }
            }
            keys.extend(page.keys);
            match page.next {
                None => return Ok(keys),
                next => cursor = next,
            }
        }
        Err(NO_PROGRESS)
    }
}

struct Page {
    keys: Vec<ListedKey>,
    /// Parameter and cursor of the next page, if there is one.
    next: Option<(String, String)>,
}

impl Page {
    fn read(list: &List, json: &Value) -> Result<Page, IssuerError> {
        let items = json.pointer(&list.items).and_then(Value::as_array).ok_or(IssuerError::Unclear("it holds no list"))?;
        let keys = items.iter().map(|item| listed(list, item)).collect::<Result<Vec<_>, _>>()?;
        let next = list.paging.as_ref().map(|paging| next_page(paging, json, items)).transpose()?.flatten();
        Ok(Page { keys, next })
    }
}

fn next_page(paging: &Paging, json: &Value, items: &[Value]) -> Result<Option<(String, String)>, IssuerError> {
    let more = json.pointer(&paging.more).and_then(Value::as_bool);
    if !more.ok_or(IssuerError::Unclear("it doesn't say whether the list goes on"))? {
        return Ok(None);
    }
    let last = items.last().ok_or(NO_PROGRESS)?;
    let cursor = last.pointer(&paging.cursor).and_then(id_text).filter(|text| !text.is_empty());
    let cursor = cursor.ok_or(IssuerError::Unclear("it doesn't say where the list goes on"))?;
    Ok(Some((paging.parameter.clone(), cursor)))
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
