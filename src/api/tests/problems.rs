//! Every refusal of the contract, and that none of them holds anything of what was sent.

use super::fake::CANARY;
use super::*;
use crate::api::Slug;
use crate::domain::material::ValueProblem;
use crate::engine::errors::{
    ConfirmError, FieldProblem, ForgetError, LaunchError, PauseError, ReadError, ReleaseError, ReportError, RevokeError, RollbackError,
    RotateError, SubmitError,
};

#[test]
fn the_slugs_are_those_of_the_contract() {
    let all: Vec<String> = Slug::ALL.iter().map(|slug| format!("{} {}", slug.status(), slug.as_str())).collect();
    let contract = "400 bad-name;400 bad-request;400 forwarded;401 unauthenticated;403 forbidden;403 wrong-proof;404 not-found;405 method;\
        408 timeout;409 version-conflict;409 rotation-open;409 not-revocable;409 ambiguous-instance;413 too-large;415 media-type;\
        422 environment-mismatch;422 undetermined;422 provider-refused;422 invalid-fields;429 too-many;503 not-ready;503 no-version;\
        503 store-unavailable;503 audit-unavailable";
    assert_eq!(all.join(";"), contract);
}

#[tokio::test]
async fn what_the_engine_refuses_to_read_is_named() {
    let it = start(quick()).await;
    for (error, status, slug) in [
        (ReadError::Forbidden, 403, "forbidden"),
        (ReadError::NoVersion, 503, "no-version"),
        (ReadError::NotLive, 503, "not-ready"),
        (ReadError::TooManyInstances, 429, "too-many"),
        (ReadError::StoreUnavailable, 503, "store-unavailable"),
        (ReadError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.read.lock().unwrap() = Some(error);
        it.get(APP, "/v1/credentials/one").await.refused(status, slug);
    }
}

#[tokio::test]
async fn what_the_engine_refuses_to_confirm_is_named() {
    let it = start(quick()).await;
    let body = r#"{"credential":"one","version":"v1","instance":"default","field":"client_secret","proof":"00"}"#;
    for (error, status, slug) in [
        (ConfirmError::Forbidden, 403, "forbidden"),
        (ConfirmError::AmbiguousInstance, 409, "ambiguous-instance"),
        (ConfirmError::NotNewest, 409, "version-conflict"),
        (ConfirmError::WrongProof, 403, "wrong-proof"),
        (ConfirmError::Unavailable, 503, "store-unavailable"),
        (ConfirmError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.confirm.lock().unwrap() = Some(error);
        it.send(APP, "POST /v1/confirmations", body).await.refused(status, slug);
    }
}

#[tokio::test]
async fn what_the_engine_refuses_of_a_report_is_named() {
    let it = start(quick()).await;
    let body = r#"{"credential":"one","version":"v1","instance":"default","outcome":"failed"}"#;
    for (error, status, slug) in [
        (ReportError::Forbidden, 403, "forbidden"),
        (ReportError::AmbiguousInstance, 409, "ambiguous-instance"),
        (ReportError::NotNewest, 409, "version-conflict"),
        (ReportError::Unavailable, 503, "store-unavailable"),
        (ReportError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.report.lock().unwrap() = Some(error);
        it.send(APP, "POST /v1/reports", body).await.refused(status, slug);
    }
}

#[tokio::test]
async fn what_the_engine_refuses_to_take_is_named() {
    let it = start(quick()).await;
    let reason = || "the reason".to_owned();
    let fields = vec![("client_secret".parse().unwrap(), FieldProblem::Value(ValueProblem::Placeholder))];
    for (error, status, slug) in [
        (SubmitError::UnknownCredential, 404, "not-found"),
        (SubmitError::RotationOpen, 409, "rotation-open"),
        (SubmitError::InvalidFields(fields), 422, "invalid-fields"),
        (SubmitError::EnvironmentMismatch { reasons: reason() }, 422, "environment-mismatch"),
        (SubmitError::Undetermined { reasons: reason() }, 422, "undetermined"),
        (SubmitError::ProviderRefused { reason: reason() }, 422, "provider-refused"),
        (SubmitError::ProviderUnavailable { reason: reason() }, 503, "not-ready"),
        (SubmitError::Occupied, 409, "version-conflict"),
        (SubmitError::NothingThere, 409, "version-conflict"),
        (SubmitError::StoreChanged, 409, "version-conflict"),
        (SubmitError::Unreadable, 422, "invalid-fields"),
        (SubmitError::StoreUnavailable, 503, "store-unavailable"),
        (SubmitError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.submit.lock().unwrap() = Some(error);
        it.send(BOSS, "PUT /v1/credentials/one/submission", r#"{"fields":{}}"#).await.refused(status, slug);
    }
}

#[tokio::test]
async fn what_the_engine_refuses_to_begin_or_to_release_is_named() {
    let it = start(quick()).await;
    for (error, status, slug) in [
        (RotateError::UnknownCredential, 404, "not-found"),
        (RotateError::RotationOpen, 409, "rotation-open"),
        (RotateError::NoVersion, 503, "no-version"),
        (RotateError::CurrentRefused, 422, "provider-refused"),
        (RotateError::CannotMint, 422, "provider-refused"),
        (RotateError::Paused, 503, "not-ready"),
        (RotateError::StoreUnavailable, 503, "store-unavailable"),
        (RotateError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.rotate.lock().unwrap() = Some(error);
        it.call(BOSS, "POST /v1/credentials/one/rotations", "", "").await.refused(status, slug);
    }
    for (error, status, slug) in [
        (ReleaseError::Unknown, 404, "not-found"),
        (ReleaseError::Unavailable, 503, "store-unavailable"),
        (ReleaseError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.release.lock().unwrap() = Some(error);
        it.call(BOSS, "DELETE /v1/applications/app/instances/a", "", "").await.refused(status, slug);
    }
}

#[tokio::test]
async fn what_the_engine_refuses_in_an_incident_is_named() {
    let it = start(quick()).await;
    for (error, status, slug) in [
        (RollbackError::UnknownCredential, 404, "not-found"),
        (RollbackError::NothingToGoBackTo, 409, "version-conflict"),
        (RollbackError::BeingRevoked, 409, "version-conflict"),
        (RollbackError::Stolen, 409, "version-conflict"),
        (RollbackError::Refused, 422, "provider-refused"),
        (RollbackError::StoreUnavailable, 503, "store-unavailable"),
        (RollbackError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.rollback.lock().unwrap() = Some(error);
        it.call(BOSS, "POST /v1/credentials/one/rollback", "", "").await.refused(status, slug);
    }
    for (error, status, slug) in [
        (RevokeError::Unknown, 404, "not-found"),
        (RevokeError::Current, 409, "not-revocable"),
        (RevokeError::Held { who: "app/pod-1".to_owned() }, 409, "not-revocable"),
        (RevokeError::NotNow("it is paused"), 409, "not-revocable"),
        (RevokeError::Later { because: "the provider is away".to_owned() }, 409, "not-revocable"),
        (RevokeError::StoreUnavailable, 503, "store-unavailable"),
        (RevokeError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.revoke.lock().unwrap() = Some(error);
        it.call(BOSS, "DELETE /v1/credentials/one/versions/v2", "", "").await.refused(status, slug);
    }
    for (error, status, slug) in [
        (ForgetError::Unknown, 404, "not-found"),
        (ForgetError::RotationOpen, 409, "rotation-open"),
        (ForgetError::Documented, 409, "not-revocable"),
        (ForgetError::Held { who: "app/pod-1".to_owned() }, 409, "not-revocable"),
        (ForgetError::Paused, 503, "not-ready"),
        (ForgetError::StoreUnavailable, 503, "store-unavailable"),
        (ForgetError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.forget.lock().unwrap() = Some(error);
        it.call(BOSS, "DELETE /v1/credentials/one", "", "").await.refused(status, slug);
    }
    for (error, status, slug) in [
        (LaunchError::UnknownApplication, 404, "not-found"),
        (LaunchError::UnknownItem, 404, "not-found"),
        (LaunchError::AmbiguousItem, 400, "bad-request"),
        (LaunchError::Judged("it failed"), 400, "bad-request"),
        (LaunchError::Unavailable, 503, "store-unavailable"),
        (LaunchError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.launch.lock().unwrap() = Some(error);
        it.send(BOSS, "PUT /v1/golive/app/confirmations/retries", r#"{"by":"Ana Souza"}"#).await.refused(status, slug);
        it.call(BOSS, "DELETE /v1/golive/app/confirmations/retries", "", "").await.refused(status, slug);
    }
    it.get(BOSS, "/v1/golive/nobody").await.refused(404, "not-found");
    for (error, status, slug) in [
        (PauseError::Unknown, 404, "not-found"),
        (PauseError::Unavailable, 503, "store-unavailable"),
        (PauseError::AuditUnavailable, 503, "audit-unavailable"),
    ] {
        *it.fake.pause.lock().unwrap() = Some(error);
        it.call(BOSS, "PUT /v1/pause", "", "").await.refused(status, slug);
    }
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_say_so() {
    let it = start(quick()).await;
    for line in ["GET /", "GET /v1/nothing", "POST /v1/credentials/one/rollbacks", "DELETE /v1/pauses"] {
        it.call(BOSS, line, "", "").await.refused(404, "not-found");
    }
    for (line, allow) in [
        ("POST /v1/credentials/one", "GET, DELETE"),
        ("GET /v1/pause", "PUT, DELETE"),
        ("POST /v1/credentials/one/pause", "PUT, DELETE"),
        ("GET /v1/credentials/one/rollback", "POST"),
        ("GET /v1/credentials/one/versions/v1", "DELETE"),
        ("HEAD /v1/credentials", "GET"),
        ("OPTIONS /healthz", "GET"),
        ("GET /v1/confirmations", "POST"),
        ("GET /v1/reports", "POST"),
        ("POST /v1/credentials/one/submission", "PUT"),
        ("GET /v1/applications/app/instances/a", "DELETE"),
    ] {
        let mut stream = it.tcp().await;
        stream.write_all(request(BOSS, line, "connection: close\r\n", "").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 405 ") && text.contains(&format!("\r\nallow: {allow}\r\n")), "{line}: {text}");
    }
}

#[tokio::test]
async fn who_is_unknown_is_asked_for_a_bearer_whatever_is_wrong() {
    let it = start(quick()).await;
    let mut seen = Vec::new();
    for header in [
        "",
        "authorization: Bearer wrong\r\n",
        "authorization: Basic YTpi\r\n",
        "authorization: Bearer \r\n",
        "authorization: app-token\r\n",
    ] {
        let reply = it.raw(format!("GET /v1/credentials/one HTTP/1.1\r\nhost: x\r\n{header}\r\n")).await;
        reply.refused(401, "unauthenticated");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        seen.push(reply.json()["detail"].clone());
    }
    assert!(seen.iter().all(|detail| *detail == seen[0]));
}

#[tokio::test]
async fn no_refusal_repeats_what_was_sent() {
    let it = start(quick()).await;
    let canary = "canary0123456789";
    let bodies = [
        format!(r#"{{"fields":{{"client_secret":"{canary}"}},"{canary}":1}}"#),
        format!(r#"{{"fields":{{"client_secret":"{canary}","client_secret":"{canary}"}}}}"#),
        format!(r#"{{"fields":{{"{canary}-":"{canary}"}}}}"#),
        format!(r#"{{"fields":"{canary}"}}"#),
        format!("\"{canary}\""),
        canary.to_owned(),
    ];
    for body in &bodies {
        let reply = it.send(BOSS, "PUT /v1/credentials/one/submission", body).await;
        reply.refused(400, "bad-request");
        assert!(!reply.body.contains(canary), "{reply:?}");
        assert!(!it.send(APP, "POST /v1/confirmations", body).await.body.contains(canary));
        assert!(!it.send(APP, "POST /v1/reports", body).await.body.contains(canary));
    }
    for line in [format!("GET /v1/credentials/{canary}.x"), format!("GET /v1/status?{canary}={canary}"), format!("GET /v1/{canary}")] {
        let reply = it.call(BOSS, &line, &format!("keywright-instance: {canary} {canary}\r\n"), "").await;
        assert!(!reply.body.contains(canary) && !reply.head.contains(canary), "{reply:?}");
    }
}

#[tokio::test]
async fn a_bug_is_one_requests_trouble() {
    let it = start(quick()).await;
    let reply = it.send(BOSS, "PUT /v1/credentials/panics/submission", r#"{"fields":{}}"#).await;
    reply.refused(503, "not-ready");
    assert!(!reply.body.contains(&CANARY[..8]));
    assert_eq!(it.get(APP, "/v1/credentials/one").await.status, 200);
}
