//! The cluster itself: TokenReview for our audience, and lists of pods.

use std::collections::BTreeSet;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};

use super::{Answer, Pods, PodsError, ReviewError, TokenReviewer, Verdict, judge};
use crate::cluster::{Cluster, ClusterError};
use crate::domain::ids::{Name, ObjectUid};
use crate::domain::material::Secret;

/// Pods of one page.
const PAGE: u32 = 500;
/// How often a list begins anew because a later page of it was forgotten.
const LIST_TRIES: usize = 3;

/// Reviews by the API server of this cluster. Needs the right to `create` `tokenreviews`.
#[derive(Debug, Clone)]
pub struct ClusterReviewer {
    cluster: Cluster,
    audience: String,
}

impl ClusterReviewer {
    /// `audience` is ours alone: a token that somebody else may use isn't shown to us by accident.
    pub fn new(cluster: Cluster, audience: String) -> ClusterReviewer {
        ClusterReviewer { cluster, audience }
    }
}

#[async_trait]
impl TokenReviewer for ClusterReviewer {
    async fn review(&self, token: &Secret) -> Result<Verdict, ReviewError> {
        // What isn't text is no token.
        let Some(text) = token.expose_str() else { return Ok(Verdict::Refused) };
        let spec = TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: Some(text.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.cluster.client());
        // Made and answered in one go: nothing of it is kept, so a lost answer is simply asked for again.
        let answer = self.cluster.call(reviews.create(&PostParams::default(), &review)).await.map_err(review_error)?;
        Ok(judge(&answer_of(answer), &self.audience))
    }
}

fn answer_of(review: TokenReview) -> Answer {
    let status = review.status.unwrap_or_default();
    let user = status.user.unwrap_or_default();
    Answer {
        authenticated: status.authenticated == Some(true),
        audiences: status.audiences.unwrap_or_default(),
        username: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    }
}

fn review_error(error: ClusterError) -> ReviewError {
    match error {
        ClusterError::Forbidden | ClusterError::Unauthorized => ReviewError::Forbidden,
        ClusterError::TooMany { .. } => ReviewError::TooMany,
        _ => ReviewError::Unavailable,
    }
}

/// Lists by the API server of this cluster. Needs the right to `list` `pods` in the namespaces that are asked for.
#[derive(Debug, Clone)]
pub struct ClusterPods {
    cluster: Cluster,
}

impl ClusterPods {
    pub fn new(cluster: Cluster) -> ClusterPods {
        ClusterPods { cluster }
    }

    /// All pages, from one consistent look: without a version, the server asks what is true now and not what it remembers.
    async fn list(&self, namespace: &Name) -> Result<BTreeSet<ObjectUid>, ClusterError> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client(), namespace.as_str());
        let mut living = BTreeSet::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = self.cluster.call(pods.list(&page)).await?;
            for pod in list.items.iter().filter(|pod| !has_ended(pod)) {
                // A pod that we can't name isn't one that we could have served; that it is there must still be a whole answer.
                let uid = pod.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).ok_or(ClusterError::Unreadable)?;
                living.insert(uid);
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
                None => return Ok(living),
            }
        }
    }
}

/// All its containers have ended, and none starts again. One that is being deleted hasn't ended yet.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[async_trait]
impl Pods for ClusterPods {
    async fn living(&self, namespace: &Name) -> Result<BTreeSet<ObjectUid>, PodsError> {
        for _ in 0..LIST_TRIES {
            match self.list(namespace).await {
                Ok(living) => return Ok(living),
                Err(ClusterError::Gone) => {}
                Err(ClusterError::Forbidden) => return Err(PodsError::Forbidden),
                Err(_) => return Err(PodsError::Unavailable),
            }
        }
        Err(PodsError::Unavailable)
    }
}
