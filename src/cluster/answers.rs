//! What is done with an answer before the client reads it: it is bounded, and `Retry-After` is put where the client looks for it.

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http_body_util::{BodyExt as _, Full, Limited};
use kube::client::DynBody;
use serde_json::json;

pub(super) type Answer = Response<Box<DynBody>>;
pub(super) type Mend = fn(Answer) -> Answer;

/// The API's flow control answers 429 with plain text and a header. The client reads nothing but the body, so what the header says
/// would be lost. Of the body nothing is kept: what counts of such an answer is its status.
pub(super) fn with_retry_after_in_the_body(answer: Answer) -> Answer {
    let status = answer.status();
    if status.as_u16() != 429 && !status.is_server_error() {
        return answer;
    }
    let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok());
    let Some(seconds) = seconds else { return answer };
    let reason = if status.as_u16() == 429 { "TooManyRequests" } else { "ServiceUnavailable" };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status.as_u16(),
        "details": {"retryAfterSeconds": seconds},
    });
    let (mut head, _) = answer.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body: Box<DynBody> = Box::new(Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}));
    Response::from_parts(head, body)
}

/// A longer body is an error of the connection.
pub(super) fn bounded(answer: Answer, bytes_max: usize) -> Answer {
    answer.map(|body| -> Box<DynBody> { Box::new(Limited::new(body, bytes_max)) })
}
