//! One connection's bytes: cuts off who takes nothing, closes in stages, and gives the refusals of the HTTP library our own form.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use uuid::Uuid;

use super::problem::{Problem, REQUEST_ID, Slug};

/// How long, and how many bytes, a sender who was refused may go on after our answer before the connection is closed under it. A close with bytes
/// unread resets the connection: what the network lost of the answer wouldn't be sent again, and the sender might never see it (RFC 9112,
/// section 9.6). No longer than an idle connection may stay.
const LINGER_TIME: Duration = Duration::from_secs(5);
const LINGER_MAX: usize = 1 << 20;

/// The library's bare answers are shorter than this.
const BARE_MAX: usize = 256;

/// Whether a request of this connection was answered before all of it had come: who sends it may go on.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection with a bound on how long a write may stand still.
#[derive(Debug)]
pub(super) struct Wire<T> {
    inner: T,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// A problem document on its way out in place of a bare answer, and how much of it is gone.
    instead: Option<(Vec<u8>, usize)>,
    unread: Unread,
    lingering: Option<Linger>,
}

#[derive(Debug)]
struct Linger {
    until: Pin<Box<Sleep>>,
    seen: usize,
}

impl<T> Wire<T> {
    pub(super) fn new(inner: T, write_timeout: Duration) -> Wire<T> {
        Wire { inner, write_timeout, stalled: None, instead: None, unread: Unread::default(), lingering: None }
    }

    /// Where somebody may be answered before all that he sends has come, which this tells.
    pub(super) fn with_unread(self, unread: Unread) -> Wire<T> {
        Wire { unread, ..self }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    /// Passes a write on, or fails it once nothing was taken for too long.
    fn bounded<R>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let deadline = Instant::now() + self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn send_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((bytes, sent)) = &mut self.instead {
            if *sent == bytes.len() {
                break;
            }
            let polled = Pin::new(&mut self.inner).poll_write(cx, &bytes[*sent..]);
            if let Poll::Ready(Ok(count)) = &polled {
                *sent += count;
            }
            if ready!(self.bounded(cx, polled))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what the other side still sends, until it closes, too.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.lingering.get_or_insert_with(|| Linger { until: Box::pin(sleep_until(Instant::now() + LINGER_TIME)), seen: 0 });
        loop {
            let mut space = [0; 4096];
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buffer) {
                Poll::Pending => return linger.until.as_mut().poll(cx),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && linger.seen < LINGER_MAX => linger.seen += buffer.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }
}

/// The problem document for an answer that the HTTP library gave by itself, without asking us: to a request that it
/// couldn't parse. All answers of ours have a request id, these have nothing but their status line.
fn problem_instead(written: &[u8]) -> Option<Vec<u8>> {
    let bare = written.len() < BARE_MAX && written.starts_with(b"HTTP/1.") && written.ends_with(b"\r\n\r\n");
    let text = std::str::from_utf8(written).ok().filter(|_| bare)?;
    if text.to_ascii_lowercase().contains(REQUEST_ID.as_str()) {
        return None;
    }
    let problem = match text.get(8..13)? {
        " 400 " => Problem::bad_request("the request line or a header isn't HTTP/1.1"),
        " 414 " | " 431 " => Problem::new(Slug::TooLarge, "the head of a request has 16384 bytes at most"),
        _ => return None,
    };
    Some(problem.wire(Uuid::now_v7()))
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.send_instead(cx))?;
        if let Some(instead) = problem_instead(bytes) {
            this.instead = Some((instead, 0));
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.bounded(cx, polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next()) {
            return self.poll_write(cx, only);
        }
        let this = &mut *self;
        ready!(this.send_instead(cx))?;
        let polled = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        this.bounded(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.send_instead(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.send_instead(cx))?;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        }
        if this.instead.is_some() || this.unread.0.load(Ordering::Relaxed) {
            ready!(this.linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test]
    async fn api_wire_fails_a_write_that_stands_still() {
        let (ours, _theirs) = duplex(16);
        let mut wire = Wire::new(ours, Duration::from_millis(50));
        let written = timeout(Duration::from_secs(2), wire.write_all(&[b'x'; 100])).await.unwrap();
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn api_wire_waits_for_a_slow_reader_that_reads() {
        let (ours, mut theirs) = duplex(16);
        let mut wire = Wire::new(ours, Duration::from_millis(100));
        let reading = tokio::spawn(async move {
            let mut piece = [0; 16];
            for _ in 0..10 {
                sleep(Duration::from_millis(30)).await;
                theirs.read_exact(&mut piece).await.unwrap();
            }
        });
        wire.write_all(&[b'x'; 160]).await.unwrap();
        reading.await.unwrap();
    }

    fn of_refused<T>(ours: T) -> Wire<T> {
        let unread = Unread::default();
        unread.note();
        Wire::new(ours, Duration::from_secs(30)).with_unread(unread)
    }

    #[tokio::test]
    async fn api_wire_closes_at_once_where_all_was_read() {
        let (ours, _silent) = duplex(16);
        timeout(LINGER_TIME / 2, Wire::new(ours, Duration::from_secs(30)).shutdown()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn api_wire_closes_once_the_other_side_does() {
        let (ours, mut theirs) = duplex(16);
        let closing = tokio::spawn(async move { of_refused(ours).shutdown().await });
        theirs.write_all(&[b'x'; 160]).await.unwrap();
        assert!(!closing.is_finished());
        drop(theirs);
        timeout(Duration::from_secs(2), closing).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn api_wire_closes_under_who_goes_on() {
        let (ours, mut silent) = duplex(16);
        let closing = tokio::spawn(async move { of_refused(ours).shutdown().await });
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "our side is closed at once");
        assert!(!closing.is_finished(), "and the other one later");

        let (ours, mut endless) = duplex(1 << 16);
        let sending = tokio::spawn(async move {
            let mut sent = 0;
            while endless.write_all(&[b'x'; 1 << 12]).await.is_ok() {
                sent += 1 << 12;
            }
            sent
        });
        of_refused(ours).shutdown().await.unwrap();
        assert!((LINGER_MAX..LINGER_MAX + (1 << 17)).contains(&sending.await.unwrap()));
        timeout(6 * LINGER_TIME, closing).await.unwrap().unwrap().unwrap();
    }

    #[test]
    fn api_wire_replaces_bare_answers_only() {
        let bare = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n";
        assert!(problem_instead(bare).is_some());
        assert!(problem_instead(b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n").is_some());
        assert!(problem_instead(b"HTTP/1.1 400 Bad Request\r\nx-request-id: 1\r\n\r\n").is_none());
        assert!(problem_instead(b"HTTP/1.1 100 Continue\r\n\r\n").is_none());
        assert!(problem_instead(b"{\"fields\":{}}").is_none());
    }
}
