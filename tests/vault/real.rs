//! The contract on a real server, where one is named. It touches nothing but a prefix of its own, which is gone afterwards.

use keywright::stores::contract::contract;
use keywright::stores::vault::{Auth, VaultSettings};

use super::fake::ROOT;
use super::{World, each_apart};

const ADDRESS: &str = "KEYWRIGHT_TEST_VAULT_ADDR";
const TOKEN: &str = "KEYWRIGHT_TEST_VAULT_TOKEN";
const MOUNT: &str = "KEYWRIGHT_TEST_VAULT_MOUNT";

struct Server {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Server {
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

async fn keeps_the_contract(address: &str, token: &str, mount: String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, token).unwrap();
    let prefix = format!("keywright-test-{}", uuid::Uuid::new_v4().simple());
    let address = address.trim_end_matches('/').to_owned();
    let (client, base) = (reqwest::Client::builder().no_proxy().build().unwrap(), format!("{address}/v1/{mount}"));
    let server = Server { client, base, token: token.trim().to_owned() };
    let settings = VaultSettings { address, mount, prefix: prefix.clone(), namespace: None, ca: None, auth: Auth::Token { file } };
    // Cleaned up also where the contract isn't kept.
    let outcome = tokio::spawn(async move { contract(each_apart(settings)).await }).await;
    server.remove(format!("{prefix}/")).await;
    assert_eq!(server.ask("LIST", &format!("{prefix}/")).await.0, 404, "nothing is left");
    outcome.expect("the contract is kept");
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
