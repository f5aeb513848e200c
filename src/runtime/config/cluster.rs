//! `cluster: {kubeconfig: FILE}`: the Kubernetes cluster of a daemon that doesn't run in one.

use std::path::Path;

use crate::cluster::ClusterSettings;
use crate::policies::problem::Sink;
use crate::policies::reader::Fields;
use crate::policies::tree::Node;

pub(super) fn read_cluster(node: &Node, folder: &Path, sink: &Sink<'_>) -> Option<ClusterSettings> {
    let fields = Fields::of(node, sink)?;
    let file = fields.need("kubeconfig", "a kubeconfig with a token or a client certificate, for example `./kubeconfig`");
    let kubeconfig = file.and_then(|node| super::path(node, folder, sink));
    fields.done();
    Some(ClusterSettings { kubeconfig: Some(kubeconfig?) })
}
