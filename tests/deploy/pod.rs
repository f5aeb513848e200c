//! The daemon as the pod of `overlays/single` runs it: in the image's root file system, read-only, as user 65532 without any right, with
//! the volumes of the manifest mounted as the kubelet mounts them; and the example's application beside it.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::exposition::{Family, parse};
use crate::fake::{API_AUDIENCE, ApiServer};
use crate::wire::{Ask, Target};
use crate::{list, monitoring, readme, rendered, repository, workloads};

const USER: u32 = 65532;
/// A debug build opens the store and serves within this on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

const HOUR: Duration = Duration::from_secs(3_600);
/// The example's pod.
const INSTANCE: &str = "payments-api-1";
const API_ACCESS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The roles and bindings of both folders, at the API server: the daemon has these rights and no others.
fn rights_of_the_manifests(cluster: &ApiServer) {
    for object in ["overlays/single", "example"].into_iter().flat_map(rendered) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let resource = match object["kind"].as_str().unwrap() {
            "Namespace" => {
                cluster.namespace(object["metadata"]["name"].as_str().unwrap());
                continue;
            }
            "Role" => "roles",
            "RoleBinding" => "rolebindings",
            "ClusterRole" => "clusterroles",
            "ClusterRoleBinding" => "clusterrolebindings",
            "ServiceAccount" => "serviceaccounts",
            _ => continue,
        };
        cluster.put(resource, &namespace, object);
    }
}

/// Runs a command of the pod: mounts what the manifest mounts into the root, makes it read-only, gives all rights up. Only this process
/// and those it starts see the mounts; they end with it.
const AS_A_POD: &str = r#"
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
  mount --bind "$1" "$root$2"
  [ "$3" = rw ] || mount -o remount,ro,bind "$root$2"
  shift 3
done
shift
mount -o remount,ro,bind "$root"
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+sys_chroot,+setuid,+setgid \
  chroot --userspec=65532:65532 --groups=65532 "$root" /usr/local/bin/keywright "$@"
"#;

struct Pod {
    folder: tempfile::TempDir,
    /// Where a volume lies here, where it is mounted, and whether it may be written.
    mounts: Vec<(PathBuf, String, &'static str)>,
    port: u16,
    /// What the script that README names makes: `tls.crt`, `tls.key`, `keywright.key`.
    secrets: PathBuf,
    /// What the application's pod shows.
    token: String,
    cluster: Arc<ApiServer>,
    children: Vec<Child>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn put(path: &Path, bytes: impl AsRef<[u8]>, mode: u32, group: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    chown(path, Some(0), Some(group)).unwrap();
}

impl Pod {
    async fn new() -> Pod {
        assert!(root(), "this test makes mounts: run it as root, as `sudo -E` or in a container");
        let folder = tempfile::Builder::new().prefix("keywright-pod-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cluster = ApiServer::start().await;
        rights_of_the_manifests(&cluster);
        let token = cluster.token("payments", "payments-api", Some(INSTANCE), &["keywright"], HOUR);
        let mut pod = Pod { folder, mounts: Vec::new(), port, secrets: PathBuf::new(), token, cluster, children: Vec::new() };
        pod.make_root();
        pod.make_secrets();
        pod.make_volumes();
        pod
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make_root(&self) {
        let root = self.path("root");
        let made = Command::new(repository().join("deploy/rootfs.sh")).arg(env!("CARGO_BIN_EXE_keywright")).arg(&root).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // These are the container runtime's, as is what a mount needs to lie on.
        for folder in ["proc", "dev", API_ACCESS.trim_start_matches('/')] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
    }

    /// By the script that README names, for this machine's name beside the service's.
    fn make_secrets(&mut self) {
        self.secrets = self.path("secrets");
        fs::create_dir(&self.secrets).unwrap();
        let made = readme::make_keys(&self.secrets, "DNS:keywright.keywright.svc,DNS:localhost");
        assert!(made.status.success(), "{}", said(&made));
    }

    fn made(&self, name: &str) -> Vec<u8> {
        fs::read(self.secrets.join(name)).unwrap()
    }

    /// As the kubelet makes them for a pod with `fsGroup`.
    fn make_volumes(&mut self) {
        let objects = rendered("overlays/single");
        let pod = &workloads(&objects)[0]["spec"]["template"]["spec"];
        for mount in list(&pod["containers"][0]["volumeMounts"]) {
            let name = mount["name"].as_str().unwrap();
            let volume = list(&pod["volumes"]).iter().find(|volume| volume["name"] == name).unwrap();
            let folder = self.path("volumes").join(name);
            let files: BTreeMap<String, Vec<u8>> = if let Some(name) = volume["configMap"]["name"].as_str() {
                let map = crate::the(&objects, "ConfigMap", name)["data"].as_object().unwrap().clone();
                map.into_iter().map(|(name, text)| (name, self.for_this_test(text.as_str().unwrap()).into_bytes())).collect()
            } else {
                self.secret(volume)
            };
            if files.is_empty() {
                // A new volume: root's, and its group may write.
                fs::create_dir_all(&folder).unwrap();
                chown(&folder, Some(0), Some(USER)).unwrap();
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o2775)).unwrap();
            }
            let mode = if volume["configMap"].is_object() { 0o644 } else { 0o440 };
            for (name, bytes) in files {
                put(&folder.join("..2026_01_01").join(&name), bytes, mode, USER);
                symlink(format!("..data/{name}"), folder.join(&name)).unwrap();
                if !folder.join("..data").exists() {
                    symlink("..2026_01_01", folder.join("..data")).unwrap();
                }
            }
            let access = if mount["readOnly"] == true { "ro" } else { "rw" };
            self.mounts.push((folder, mount["mountPath"].as_str().unwrap().to_owned(), access));
        }
    }

    /// What a person makes, or Kubernetes; nothing for volumes that begin empty.
    fn secret(&self, volume: &Value) -> BTreeMap<String, Vec<u8>> {
        let files: Vec<(&str, Vec<u8>)> = match volume["secret"]["secretName"].as_str() {
            Some("keywright-key") => vec![("keywright.key", self.made("keywright.key"))],
            Some("keywright-tls") => vec![("tls.crt", self.made("tls.crt")), ("tls.key", self.made("tls.key"))],
            Some(other) => panic!("nobody makes {other}"),
            None if volume["projected"].is_object() => {
                let token = self.cluster.token("keywright", "keywright", Some("keywright-1"), &[API_AUDIENCE], HOUR);
                let file = self.cluster.kubeconfig(self.folder.path(), "keywright", &token);
                vec![("kubeconfig", fs::read(file).unwrap())]
            }
            None => Vec::new(),
        };
        files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
    }

    /// Two things of the manifests can't be so here: the port is shared with other tests, and the API server's name leads nowhere.
    fn for_this_test(&self, text: &str) -> String {
        let text = text.replace("0.0.0.0:8750", &format!("127.0.0.1:{}", self.port));
        text.replace("identities: {", &format!("cluster: {{kubeconfig: {API_ACCESS}/kubeconfig}}\nidentities: {{"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", AS_A_POD, "sh"]).arg(self.path("root"));
        for (here, there, access) in &self.mounts {
            command.arg(here).args([there.as_str(), access]);
        }
        command.arg("--").args(arguments).env_clear().env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin");
        command.env("KEYWRIGHT_CONFIG", "/etc/keywright/config/keywright.yaml");
        command
    }

    /// As `kubectl exec` runs it.
    fn exec(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    fn start(&mut self) {
        let log = fs::File::create(self.path("daemon.log")).unwrap();
        let child = self.command(&["run"]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.children.push(child);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    fn target(&self) -> Target {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.made("tls.crt")).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Target::Tls(([127, 0, 0, 1], self.port).into(), Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }

    async fn status_of(&self, path: &str) -> Option<u16> {
        let ask = Ask { method: "GET", path, headers: &[], body: None };
        self.target().raw(&ask.bytes()).await.ok().flatten().map(|answer| answer.status)
    }

    async fn wait_until_ready(&mut self) {
        let start = Instant::now();
        while self.status_of("/readyz").await != Some(200) {
            let ended = self.children[0].try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "{ended:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The example's program, as its pod starts it, for this daemon.
    fn start_example(&mut self) {
        let folder = self.path("application");
        put(&folder.join("token"), &self.token, 0o400, 0);
        put(&folder.join("ca.crt"), self.made("tls.crt"), 0o444, 0);
        let objects = rendered("example");
        let container = &workloads(&objects)[0]["spec"]["template"]["spec"]["containers"][0];
        let program = self.path("app.py");
        let maps = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        put(&program, maps["data"]["app.py"].as_str().unwrap(), 0o444, 0);
        let log = fs::File::create(self.path("application.log")).unwrap();
        let mut command = Command::new("python3");
        command.args(["-u", program.to_str().unwrap()]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        for variable in list(&container["env"]) {
            command.env(variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
        }
        command.env("KEYWRIGHT_URL", format!("https://localhost:{}", self.port)).env("KEYWRIGHT_FOLDER", &folder);
        command.env("KEYWRIGHT_INSTANCE", INSTANCE).stdin(Stdio::null());
        self.children.push(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("Python starts"));
    }

    async fn wait_for_example(&self, wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(self.path("application.log")).unwrap();
            if wanted(&log) {
                return log;
            }
            assert!(start.elapsed() < PATIENCE, "{log}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The alerts and the dashboard ask for nothing that no daemon tells: what has no value yet stands in the code of the metrics alone.
fn every_metric_is_told(families: &BTreeMap<String, Family>) {
    let source = fs::read_to_string(repository().join("src/runtime/metrics.rs")).unwrap();
    for name in monitoring::metrics_asked_for() {
        let family = ["_total", "_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        let registered = source.contains(&format!("\"{}\"", family.trim_start_matches("keywright_")));
        assert!(families.contains_key(family) || registered, "{name} is no metric");
    }
    for always in ["keywright_holders_after_overlap", "keywright_credential_deadline_seconds", "keywright_store_breaker_open"] {
        assert!(families.contains_key(always), "{always}: {:?}", families.keys());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pod_of_the_manifests_serves_and_the_example_gets_its_rotated_credential() {
    let mut pod = Pod::new().await;
    let checked = pod.exec(&["check"]);
    assert!(checked.status.success(), "{}", said(&checked));
    pod.start();
    pod.wait_until_ready().await;
    // What the manifest's probes ask for.
    let objects = rendered("overlays/single");
    let container = &workloads(&objects)[0]["spec"]["template"]["spec"]["containers"][0];
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(pod.status_of(container[probe]["httpGet"]["path"].as_str().unwrap()).await, Some(200), "{probe}");
    }
    pod.start_example();
    let first = pod.wait_for_example(|log| log.contains("is confirmed")).await;
    let rotated = pod.exec(&["rotate", "payments-webhook", "--reason", "first rotation", "--wait"]);
    assert!(rotated.status.success(), "{}", said(&rotated));
    let log = pod.wait_for_example(|log| log.matches("is confirmed").count() == 2).await;
    assert!(first.contains("payments-webhook v1-") && log.contains("payments-webhook v2-"), "{log}");
    assert!(!log.contains("refused") && !log.contains("not reached"), "{log}");
    let status = pod.exec(&["status", "payments-webhook", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let row = &status["credentials"][0];
    assert_eq!(
        (&row["applications"][0]["instance"], &row["applications"][0]["state"]),
        (&INSTANCE.into(), &"confirmed".into()),
        "{status}"
    );
    // The rights of the manifests were all that it took, and each was used.
    let calls = pod.cluster.calls();
    let refused: Vec<_> = calls.iter().filter(|(call, status)| call.user.ends_with(":keywright:keywright") && *status == 403).collect();
    assert_eq!(refused, Vec::<&(crate::fake::Call, u16)>::new());
    for (verb, resource) in [("create", "tokenreviews"), ("list", "pods")] {
        assert!(calls.iter().any(|(call, status)| call.is(verb, resource) && *status < 300), "{verb} {resource}: {calls:?}");
    }
    assert!(!status["problems"].to_string().contains("pods-unknown"), "{status}");
    let metrics = pod.target().get("/metrics", &[]).await;
    every_metric_is_told(&parse(std::str::from_utf8(&metrics.body).unwrap()));

    // What it may write it has written as its own; nothing else.
    let data = pod.path("volumes/data");
    let mode = |name: &str| fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/keywright.redb"), mode("audit.jsonl")), (0o700, 0o600, 0o600));
    // Started again on the same volume, as after an update.
    let daemon = pod.children.remove(0);
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), rustix::process::Signal::TERM).unwrap();
    let ended = daemon.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", pod.log());
    pod.start();
    pod.children.rotate_right(1);
    pod.wait_until_ready().await;
    let verified = pod.exec(&["audit", "verify"]);
    assert!(verified.status.success(), "{}", said(&verified));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_may_read_stops_the_pod() {
    let mut pod = Pod::new().await;
    let key = pod.path("volumes/key/..2026_01_01/keywright.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o444)).unwrap();
    pod.start();
    let ended = pod.children[0].wait().unwrap();
    assert!(!ended.success() && pod.log().contains("may be used by others"), "{}", pod.log());
}
