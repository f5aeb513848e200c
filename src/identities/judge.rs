//! What an answer of the TokenReview API has to say before a pod is believed to be who it says.

use std::collections::BTreeMap;

use super::Verdict;
use crate::domain::ids::{ObjectName, ObjectUid};
use crate::domain::workload::{ServiceAccount, Workload};

/// The cluster puts them into a token that is bound to a pod, and checks that the pod is there.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// The `status` of a TokenReview, as far as it counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub authenticated: bool,
    /// Those that we asked for and the token has. None from a server that doesn't know audiences: it would take a token for anybody.
    pub audiences: Vec<String>,
    pub username: String,
    pub uid: String,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Accepts the token of a service account that is bound to a pod, and nothing else. That the account has the uid of the token, and the
/// pod too, is what the server checks: an account that was made anew under its name has other tokens.
pub fn judge(answer: &Answer, audience: &str) -> Verdict {
    if !answer.authenticated || !answer.audiences.iter().any(|found| found == audience) {
        return Verdict::Refused;
    }
    workload(answer).map_or(Verdict::Refused, Verdict::Accepted)
}

fn workload(answer: &Answer) -> Option<Workload> {
    let one = |key: &str| match answer.extra.get(key).map(Vec::as_slice) {
        Some([value]) => Some(value.as_str()),
        _ => None,
    };
    Some(Workload {
        account: ServiceAccount::of_username(&answer.username)?,
        account_uid: answer.uid.parse::<ObjectUid>().ok()?,
        pod: one(POD_NAME)?.parse::<ObjectName>().ok()?,
        pod_uid: one(POD_UID)?.parse::<ObjectUid>().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Answer {
        let extra = [(POD_NAME, "api-1"), (POD_UID, "5c0e"), ("authentication.kubernetes.io/node-name", "n")];
        Answer {
            authenticated: true,
            audiences: vec!["keywright".to_owned()],
            username: "system:serviceaccount:payments:payments-api".to_owned(),
            uid: "a1".to_owned(),
            extra: extra.into_iter().map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).collect(),
        }
    }

    #[test]
    fn a_token_of_ours_that_is_bound_to_a_pod_is_taken() {
        let Verdict::Accepted(workload) = judge(&good(), "keywright") else { panic!("refused") };
        assert_eq!(workload.to_string(), "pod uid 5c0e of service account payments/payments-api (uid a1)");
        assert_eq!(workload.pod.as_str(), "api-1");
    }

    #[test]
    fn whatever_is_missing_refuses_it() {
        let spoil: [(&str, fn(&mut Answer)); 11] = [
            ("not authenticated", |answer| answer.authenticated = false),
            ("a server without audiences", |answer| answer.audiences.clear()),
            ("another audience", |answer| answer.audiences = vec!["vault".to_owned()]),
            ("a longer audience", |answer| answer.audiences = vec!["keywright2".to_owned()]),
            ("a user", |answer| answer.username = "payments-api".to_owned()),
            ("a node", |answer| answer.username = "system:node:payments:payments-api".to_owned()),
            ("no uid", |answer| answer.uid.clear()),
            ("no pod", |answer| drop(answer.extra.remove(POD_NAME))),
            ("no uid of the pod", |answer| drop(answer.extra.remove(POD_UID))),
            ("two pods", |answer| answer.extra.get_mut(POD_UID).unwrap().push("b".to_owned())),
            ("no name", |answer| answer.extra.get_mut(POD_NAME).unwrap()[0] = "../x".to_owned()),
        ];
        for (what, spoil) in spoil {
            let mut answer = good();
            spoil(&mut answer);
            assert_eq!(judge(&answer, "keywright"), Verdict::Refused, "{what}");
        }
    }
}
