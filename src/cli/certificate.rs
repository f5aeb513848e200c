//! The certificate that the daemon serves its address with: read at the start, and again when it changed.

use std::sync::Arc;

use rustls::ServerConfig;

use crate::engine::Engine;
use crate::runtime::reload::{LOOK_EVERY, Watch};
use crate::runtime::shutdown::Shutdown;
use crate::runtime::tls::{Pair, TlsError, TlsFiles};

use super::daemon::blocking;
use super::failure::Failure;

/// What status and a refused start call a certificate or key that can't be used.
const CODE: &str = "tls-invalid";

/// What the address is secured with.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    pair: Pair,
    watch: Watch,
}

impl Tls {
    /// # Errors
    /// Exit status 2: the pair can't be used.
    pub(super) async fn open(files: TlsFiles, shutdown: &Shutdown) -> Result<Tls, Failure> {
        // Made before the pair is read, so that a change in between is noticed.
        let watch = Watch::new(vec![files.certificate.clone(), files.key.clone()], LOOK_EVERY, shutdown.clone());
        let pair = read(&files).await?.map_err(|error| unusable(&error))?;
        Ok(Tls { files, pair, watch })
    }

    /// # Errors
    /// As [`Tls::open`].
    pub(super) fn server_config(&self) -> Result<Arc<ServerConfig>, Failure> {
        self.pair.server_config().map_err(|error| unusable(&error))
    }

    /// A bad pair leaves the last good one in force, loudly. A certificate and its key are two files: between their writes they
    /// don't fit, which the next look finds mended.
    pub(super) async fn follow(mut self, engine: Arc<Engine>) {
        while self.watch.next().await.is_some() {
            match read(&self.files).await {
                Ok(Ok(pair)) => {
                    if !pair.is_same(&self.pair) {
                        self.pair.replace(&pair);
                        tracing::info!("the certificate was read again: new connections get it");
                    }
                    engine.set_problem(CODE, None);
                }
                Ok(Err(error)) => {
                    tracing::error!(error = %error, "the certificate can't be used; the last good one stays in force");
                    engine.set_problem(CODE, Some(format!("{error}; the last good certificate stays in force")));
                }
                Err(_) => engine.set_problem(CODE, Some("the certificate can't be read; the last good one stays in force".to_owned())),
            }
        }
    }
}

/// Off the async threads, as all that reads files.
async fn read(files: &TlsFiles) -> Result<Result<Pair, TlsError>, Failure> {
    let files = files.clone();
    blocking(move || Pair::read(&files)).await
}

fn unusable(error: &TlsError) -> Failure {
    tracing::error!(error = %error, "the certificate can't be used");
    Failure::invalid(CODE, "the certificate of `listen.tls` can't be used", error.to_string())
}
