//! The contracts on a real server, where one is named. They touch nothing but a prefix of their own, which is gone afterwards.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures_util::FutureExt as _;
use keywright::domain::material::Material;
use keywright::stores::Slot;
use keywright::stores::contract::contract;
use keywright::stores::foreign_contract::foreign_contract;
use keywright::stores::native_contract::native_contract;
use keywright::stores::vault::{Auth, VaultSettings, VaultStore};

use super::fake::ROOT;
use super::{World, each_apart};

const ADDRESS: &str = "KEYWRIGHT_TEST_VAULT_ADDR";
const TOKEN: &str = "KEYWRIGHT_TEST_VAULT_TOKEN";
const MOUNT: &str = "KEYWRIGHT_TEST_VAULT_MOUNT";

/// An unmodified client of the server: plain HTTP, and nothing of ours.
#[derive(Clone)]
pub(crate) struct Server {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Server {
    pub(crate) fn new(address: &str, token: &str, mount: &str) -> Server {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Server { client, base: format!("{address}/v1/{mount}"), token: token.trim().to_owned() }
    }

    pub(crate) async fn read(&self, path: &str) -> Option<Material> {
        let request = self.client.get(format!("{}/data/{path}", self.base)).header("x-vault-token", &self.token);
        let response = request.send().await.expect("the server answers");
        if response.status() == 404 {
            return None;
        }
        let answer: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        Some(Material::from_json(answer["data"]["data"].to_string().as_bytes()).unwrap())
    }

    pub(crate) async fn write(&self, path: &str, value: &Material) {
        let body = format!("{{\"data\": {}}}", value.to_json().expose_str().unwrap());
        let request = self.client.post(format!("{}/data/{path}", self.base)).header("x-vault-token", &self.token).body(body);
        assert_eq!(request.send().await.expect("the server answers").status(), 200);
    }

    async fn ask(&self, method: &str, path: &str) -> (u16, serde_json::Value) {
        let request = self.client.request(method.parse().unwrap(), format!("{}/metadata/{path}", self.base));
        let response = request.header("x-vault-token", &self.token).send().await.expect("the server answers");
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    /// Removes all below a folder, whose name ends with a slash.
    async fn remove(&self, folder: String) {
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            let (_, listed) = self.ask("LIST", &folder).await;
            for key in listed["data"]["keys"].as_array().cloned().unwrap_or_default() {
                let path = format!("{folder}{}", key.as_str().expect("a name"));
                if path.ends_with('/') {
                    folders.push(path);
                } else {
                    assert_eq!(self.ask("DELETE", &path).await.0, 204, "{path} is removed");
                }
            }
        }
    }
}

async fn contracts(server: Server, settings: VaultSettings) {
    let store = VaultStore::open(settings.clone(), None).unwrap();
    let path = |slot: &Slot| format!("{}/{}/{}", settings.prefix, slot.environment, slot.path);
    native_contract(&store, async |slot: &Slot| server.read(&path(slot)).await).await;
    foreign_contract(&store, async |slot: &Slot, value| server.write(&path(slot), &value).await).await;
    contract(each_apart(settings)).await;
}

async fn keeps_the_contract(address: &str, token: &str, mount: String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, token).unwrap();
    let prefix = format!("keywright-test-{}", uuid::Uuid::new_v4().simple());
    let address = address.trim_end_matches('/').to_owned();
    let server = Server::new(&address, token, &mount);
    let settings = VaultSettings { address, mount, prefix: prefix.clone(), namespace: None, ca: None, auth: Auth::Token { file } };
    // Cleaned up also where a contract isn't kept.
    let outcome = AssertUnwindSafe(contracts(server.clone(), settings)).catch_unwind().await;
    server.remove(format!("{prefix}/")).await;
    assert_eq!(server.ask("LIST", &format!("{prefix}/")).await.0, 404, "nothing is left");
    if let Err(broken) = outcome {
        resume_unwind(broken);
    }
}

#[tokio::test]
async fn a_real_vault_keeps_the_contract() {
    let (Ok(address), Ok(token)) = (std::env::var(ADDRESS), std::env::var(TOKEN)) else { return };
    let mount = std::env::var(MOUNT).unwrap_or_else(|_| "secret".to_owned());
    keeps_the_contract(&address, &token, mount).await;
}

#[tokio::test]
async fn vault_keeps_the_contract_and_is_cleaned_up_as_a_real_one() {
    let world = World::start().await;
    world.vault.put_by_hand("somebody/elses", serde_json::json!({"a": "b"}));
    keeps_the_contract(&world.vault.url(), ROOT, "secret".to_owned()).await;
    assert_eq!(world.vault.paths_with_bytes(), ["somebody/elses"]);
}
