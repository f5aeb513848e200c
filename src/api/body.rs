//! Bodies: those of requests within bounds of size and time, those of answers whole or as a stream of events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};
use zeroize::Zeroizing;

use super::problem::{Problem, Slug};

/// The longest body of a request, in bytes.
pub(super) const BODY_MAX: usize = 128 * 1024;

/// How much of an unwanted body is read and thrown away, so that the sender gets to read the answer.
const DISCARD_MAX: usize = 8 * BODY_MAX;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    Full(Option<Bytes>),
    Events(Events),
    /// So many bytes, as they come. Where they end early the connection breaks off: nobody takes a part for the whole.
    Sized {
        frames: mpsc::Receiver<Bytes>,
        left: u64,
    },
}

/// Events as they come, and a comment line whenever there was nothing to say for a while.
#[derive(Debug)]
pub(super) struct Events {
    frames: mpsc::Receiver<Bytes>,
    silence: Pin<Box<Sleep>>,
    comment_every: Duration,
}

impl Body {
    pub(super) fn empty() -> Body {
        Body::Full(None)
    }

    pub(super) fn full(bytes: Bytes) -> Body {
        Body::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// A body whose memory is wiped as soon as it was sent.
    pub(super) fn secret(bytes: Zeroizing<Vec<u8>>) -> Body {
        Body::full(secret_bytes(bytes))
    }

    pub(super) fn events(frames: mpsc::Receiver<Bytes>, comment_every: Duration) -> Body {
        Body::Events(Events { frames, silence: Box::pin(sleep(comment_every)), comment_every })
    }
}

/// Bytes that are wiped when the last copy of the handle is gone.
pub(super) fn secret_bytes(bytes: Zeroizing<Vec<u8>>) -> Bytes {
    struct Owner(Zeroizing<Vec<u8>>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Owner(bytes))
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Events(events) => events.poll_next(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            Body::Sized { frames, left } => frames.poll_recv(cx).map(|bytes| {
                let bytes = bytes?;
                *left = left.saturating_sub(bytes.len() as u64);
                Some(Ok(Frame::data(bytes)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Full(None) | Body::Sized { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Events(_) => SizeHint::default(),
            Body::Sized { left, .. } => SizeHint::with_exact(*left),
        }
    }
}

impl Events {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let next = self.frames.poll_recv(cx);
        let silent = next.is_pending() && self.silence.as_mut().poll(cx).is_ready();
        if next.is_pending() && !silent {
            return Poll::Pending;
        }
        // Polled again by whoever takes this frame, so the new deadline is registered then.
        self.silence.as_mut().reset(Instant::now() + self.comment_every);
        if silent { Poll::Ready(Some(Bytes::from_static(b":\n\n"))) } else { next }
    }
}

/// Reads a whole body into memory that is wiped afterwards.
///
/// # Errors
/// `too-large`, at once where `Content-Length` says so; `timeout`; `bad-request` if it breaks off.
pub(super) async fn read(body: &mut Incoming, within: Duration) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let too_large = || Problem::new(Slug::TooLarge, "a body has 131072 bytes at most");
    let announced = body.size_hint().exact();
    let length = announced.map_or(Ok(BODY_MAX), usize::try_from).map_err(|_| too_large())?;
    if length > BODY_MAX {
        return Err(too_large());
    }
    // Reserved once: growing would leave unwiped copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    let collect = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > length {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    let slow = |_| Problem::new(Slug::Timeout, format!("a body comes within {} s", within.as_secs()));
    timeout(within, collect).await.map_err(slow)??;
    Ok(bytes)
}

/// Takes what is left of a refused body off the line: closing a connection with unread bytes would reset it, and the
/// sender might never see the answer. Whether all of it has come.
pub(super) async fn discard(body: &mut Incoming) -> bool {
    let drain = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > DISCARD_MAX {
                return false;
            }
        }
        true
    };
    // Too slow or too much: the connection is closed after the answer.
    timeout(DISCARD_TIME, drain).await.unwrap_or(false)
}
