//! Workloads and their controllers, in small and in the test's hands: pods of the template of now in place of older ones, and what the
//! status says of that.

use serde_json::{Value, json};

use super::ApiServer;

impl ApiServer {
    /// A Deployment of so many replicas whose pods are all there.
    pub(crate) fn deployment(&self, namespace: &str, name: &str, replicas: usize) {
        let labels = json!({"app": name});
        let containers = json!([{"name": "main", "image": "example.invalid/app"}]);
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": containers}});
        let spec = json!({"replicas": replicas, "selector": {"matchLabels": labels}, "template": template});
        self.put("deployments", namespace, json!({"metadata": {"name": name}, "spec": spec}));
        for _ in 0..replicas {
            self.new_pod(namespace, name, true);
        }
        self.tell_status(namespace, name);
    }

    /// The names of its pods, in order, and the annotations that each got from its template.
    pub(crate) fn pods_of(&self, namespace: &str, deployment: &str) -> Vec<(String, Value)> {
        let pods = self.objects("pods", namespace).into_iter().filter(|pod| pod["metadata"]["labels"]["app"] == json!(deployment));
        pods.map(|pod| (text(&pod["metadata"]["name"]), pod["metadata"]["annotations"].clone())).collect()
    }

    /// One step of its controller: so many of the pods that aren't of the template of now are replaced. How many were.
    pub(crate) fn roll(&self, namespace: &str, deployment: &str, count: usize) -> usize {
        let Some(wanted) = self.object("deployments", namespace, deployment) else { return 0 };
        let wanted = wanted["spec"]["template"]["metadata"]["annotations"].clone();
        let old: Vec<String> =
            self.pods_of(namespace, deployment).into_iter().filter(|(_, has)| *has != wanted).map(|(name, _)| name).take(count).collect();
        for name in &old {
            self.new_pod(namespace, deployment, true);
            self.delete("pods", namespace, name);
        }
        self.tell_status(namespace, deployment);
        old.len()
    }

    /// Its pods of now don't come up, and its controller gives up.
    pub(crate) fn fail_rollout(&self, namespace: &str, deployment: &str) {
        self.new_pod(namespace, deployment, false);
        self.tell_status(namespace, deployment);
        self.edit("deployments", namespace, deployment, |object| {
            object["status"]["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        });
    }

    fn new_pod(&self, namespace: &str, deployment: &str, is_ready: bool) {
        let Some(object) = self.object("deployments", namespace, deployment) else { return };
        let template = &object["spec"]["template"];
        let name = format!("{deployment}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-rs"), "uid": "rs", "controller": true});
        let metadata = json!({"name": name, "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"], "ownerReferences": [owner]});
        let ready = json!({"type": "Ready", "status": if is_ready { "True" } else { "False" }});
        let status = json!({"phase": "Running", "conditions": [ready]});
        self.put("pods", namespace, json!({"metadata": metadata, "spec": template["spec"], "status": status}));
    }

    fn tell_status(&self, namespace: &str, deployment: &str) {
        let pods = self.pods_of(namespace, deployment);
        let unready =
            |name: &str| self.object("pods", namespace, name).is_some_and(|pod| pod["status"]["conditions"][0]["status"] == json!("False"));
        let available = pods.iter().filter(|(name, _)| !unready(name)).count();
        self.edit("deployments", namespace, deployment, |object| {
            let wanted = object["spec"]["template"]["metadata"]["annotations"].clone();
            let updated = pods.iter().filter(|(_, has)| *has == wanted).count();
            object["status"] = json!({"observedGeneration": object["metadata"]["generation"], "replicas": pods.len(),
                "updatedReplicas": updated, "readyReplicas": available, "availableReplicas": available});
        });
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
