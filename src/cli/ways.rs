//! The ways of delivery beside the stream, as this daemon has them.

use std::sync::Arc;

use crate::delivery::Courier;
use crate::delivery::file::FileCourier;
use crate::delivery::webhook::WebhookCourier;
use crate::engine::Engine;
use crate::runtime::config::Config;
use crate::sealing::Keyring;

use super::secrets;

/// One courier for each way.
pub(super) fn couriers(config: &Config, engine: &Arc<Engine>, keyring: Arc<Keyring>) -> Vec<Arc<dyn Courier>> {
    let (installation, _) = engine.leading();
    let secrets = secrets::courier(&config.cluster, installation, keyring);
    let webhook = WebhookCourier::new(installation, Arc::clone(engine) as _);
    vec![Arc::new(FileCourier), Arc::new(secrets), Arc::new(webhook)]
}
