//! Who is asking: a static token, the uid at the other end of the socket, or the token of a pod.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::BoxFuture;

use super::handle::Api;
use super::problem::{Problem, Slug};
use crate::domain::access::{Identity, Operator, Right, may_read};
use crate::domain::ids::{InstanceName, Name};
use crate::domain::material::Secret;
use crate::domain::policy::{Application, Policies};
use crate::domain::reason::Reason;
use crate::domain::workload::ServiceAccount;
use crate::engine::Reader;
use crate::engine::audit::Actor;
use crate::identities::{Reviews, Shown, Unshown};

const POD_TOO_LONG: &str = "the name of the pod has more than the 128 characters of an instance";

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// The Unix socket; `None` if the kernel didn't tell who is there.
    Socket {
        uid: Option<u32>,
    },
    Address,
}

/// Who is asking. One identity may be an application's and an operator's at once.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) application: Option<Arc<Application>>,
    operator: Option<Person>,
    /// The pod that it is, and until when its token says so.
    pod: Option<Shown>,
}

/// How it is asked to read.
pub(super) struct Asked<'a> {
    pub(super) instance: &'a InstanceName,
    pub(super) reason: Option<&'a Reason>,
}

#[derive(Debug, Clone)]
struct Person {
    who: String,
    may: BTreeSet<Right>,
}

/// # Errors
/// `unauthenticated`, the same for a token that is unknown, wrong or missing. A wrong token isn't forgiven on the socket:
/// who sends one means to be somebody else than its uid. `too-many` and `not-ready` where the cluster would have to be asked.
pub(super) async fn authenticate(api: &Api, peer: Peer, bearer: Option<&[u8]>) -> Result<Caller, Problem> {
    let shown = match (bearer, peer) {
        (Some(token), _) => Identity::Token { sha256: sha256(token) },
        (None, Peer::Socket { uid: Some(uid) }) => Identity::Unix { uid },
        (None, _) => return Err(Problem::unauthenticated()),
    };
    // A token that is known here is never shown to anybody else.
    let known = known(&api.service.policies(), &api.operators, &shown);
    match (known, bearer, &api.reviews) {
        (Some(caller), ..) => Ok(caller),
        (None, Some(token), Some(reviews)) => pod(api, reviews, token).await,
        (None, ..) => Err(Problem::unauthenticated()),
    }
}

/// Who the cluster says that the token's pod is.
async fn pod(api: &Api, reviews: &Reviews, token: &[u8]) -> Result<Caller, Problem> {
    let is_known =
        |account: &ServiceAccount| known(&api.service.policies(), &api.operators, &Identity::Kubernetes(account.clone())).is_some();
    let shown = reviews.check(token, is_known).await.map_err(|unshown| match unshown {
        Unshown::Refused => Problem::unauthenticated(),
        Unshown::TooMany => Problem::too_many(),
        Unshown::Away => Problem::new(Slug::NotReady, "the cluster can't be asked whose token this is: try again"),
    })?;
    let identity = Identity::Kubernetes(shown.workload.account.clone());
    // The documents may have changed meanwhile.
    let mut caller = known(&api.service.policies(), &api.operators, &identity).ok_or_else(Problem::unauthenticated)?;
    if let Some(person) = &mut caller.operator {
        person.who = format!("{} (uid {})", person.who, shown.workload.account_uid);
    }
    caller.pod = Some(shown);
    Ok(caller)
}

fn known(policies: &Policies, operators: &[Operator], shown: &Identity) -> Option<Caller> {
    let mut caller = Caller { application: None, operator: None, pod: None };
    // All are compared, found or not: the time tells neither which one it was nor how much of it fitted.
    for application in policies.applications.values() {
        if same(&application.identity, shown) {
            caller.application = Some(application.clone());
        }
    }
    for operator in operators {
        if same(&operator.identity, shown) {
            let person = caller.operator.get_or_insert_with(|| Person { who: who(shown), may: BTreeSet::new() });
            person.may.extend(operator.may.iter().copied());
        }
    }
    (caller.application.is_some() || caller.operator.is_some()).then_some(caller)
}

fn sha256(token: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token).as_ref());
    hash
}

fn same(known: &Identity, shown: &Identity) -> bool {
    match (known, shown) {
        (Identity::Token { sha256: known }, Identity::Token { sha256: shown }) => verify_slices_are_equal(known, shown).is_ok(),
        (Identity::Unix { uid: known }, Identity::Unix { uid: shown }) => known == shown,
        (Identity::Kubernetes(known), Identity::Kubernetes(shown)) => known == shown,
        _ => false,
    }
}

/// How an operator is called in the audit trail. Eight digits of a hash tell tokens apart and give none away.
fn who(identity: &Identity) -> String {
    match identity {
        Identity::Token { sha256 } => format!("token:{}", hex::encode(&sha256[..4])),
        Identity::Unix { uid } => format!("uid:{uid}"),
        Identity::Kubernetes(account) => format!("kubernetes:{account}"),
    }
}

impl Caller {
    /// Which instance is asking. A pod is the instance of its own name, and can't pass for another one.
    ///
    /// # Errors
    /// `bad-request`.
    pub(super) fn instance(&self, named: InstanceName, is_named: bool) -> Result<InstanceName, Problem> {
        let Some(shown) = &self.pod else { return Ok(named) };
        let own: InstanceName = shown.workload.pod.as_str().parse().map_err(|_| Problem::bad_request(POD_TOO_LONG))?;
        if is_named && named != own {
            return Err(Problem::bad_request("the header `keywright-instance` isn't the name of the pod: leave it out"));
        }
        Ok(own)
    }

    /// Returns once what the caller showed isn't good any more.
    pub(super) fn over(&self, api: &Api, bearer: Option<&[u8]>) -> BoxFuture<'static, ()> {
        match (&self.pod, &api.reviews, bearer) {
            (Some(shown), Some(reviews), Some(token)) => Box::pin(reviews.over(Secret::new(token), shown.expires)),
            _ => Box::pin(std::future::pending()),
        }
    }

    /// The caller as this application and as nothing else: who says which one it means to be isn't served as another, nor as the
    /// operator that its uid may be as well.
    ///
    /// # Errors
    /// `forbidden`, alike for an application that isn't the caller's and for one that doesn't exist.
    pub(super) fn only_as(self, application: &Name) -> Result<Caller, Problem> {
        match self.application {
            Some(own) if own.name == *application => Ok(Caller { application: Some(own), operator: None, ..self }),
            _ => Err(Problem::another_application()),
        }
    }

    /// What its bounds are counted by.
    pub(super) fn key(&self) -> String {
        match (&self.application, &self.operator) {
            (Some(application), _) => format!("application/{}", application.name),
            (None, Some(person)) => format!("operator/{}", person.who),
            (None, None) => String::new(),
        }
    }

    /// # Errors
    /// `forbidden`, naming the right.
    pub(super) fn check_right(&self, right: Right) -> Result<(), Problem> {
        let person = self.operator.as_ref().filter(|person| person.may.contains(&right));
        person.map(|_| ()).ok_or_else(|| Problem::right_missing(right))
    }

    /// The operator as actor. What it may do was checked by the route's right.
    pub(super) fn actor(&self) -> Result<Actor, Problem> {
        self.operator.as_ref().map(|person| Actor::Operator { who: person.who.clone() }).ok_or_else(Problem::forbidden)
    }

    /// The operator as reader, if it may read values.
    pub(super) fn operator_reader(&self, reason: Option<&Reason>) -> Option<Reader> {
        let person = self.operator.as_ref().filter(|person| person.may.contains(&Right::Read));
        person.map(|person| Reader::Operator { who: person.who.clone(), reason: reason.cloned() })
    }

    /// Why this caller may not read: an operator lacks the right; an application's document doesn't list it.
    pub(super) fn may_not_read(&self) -> Problem {
        let lacks_right = self.application.is_none() && self.check_right(Right::Read).is_err();
        if lacks_right { Problem::right_missing(Right::Read) } else { Problem::forbidden() }
    }

    pub(super) fn application_reader(&self, instance: &InstanceName) -> Option<Reader> {
        let application = self.application.as_ref()?;
        let pod = self.pod.as_ref().map(|shown| shown.workload.clone());
        Some(Reader::Application { application: application.name.clone(), instance: instance.clone(), pod })
    }

    /// As whom all of these may be read: as the application first, so that what it holds is counted. Who gives a reason
    /// is a person, and reads as one.
    pub(super) fn reader_of(&self, policies: &Policies, asked: &Asked<'_>, names: &[Name]) -> Option<Reader> {
        let listed = |application: &Arc<Application>| names.iter().all(|name| may_read(policies, application, name));
        if asked.reason.is_none() && self.application.as_ref().is_some_and(listed) {
            return self.application_reader(asked.instance);
        }
        let known = names.iter().all(|name| policies.credentials.contains_key(name));
        self.operator_reader(asked.reason).filter(|_| known)
    }
}
