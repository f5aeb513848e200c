//! Where a program gets its credentials from, and where `exec` gets them from: folders in memory, variables, a server with TLS.

use std::path::Path;

use rustix::process::Signal;

use super::{APPLICATION, House, SERVICE, Told, silent_text};
use crate::support::canaries::Canary;
use crate::support::daemon::printed;
use crate::support::tls::Authority;
use crate::world::SANDBOX;

/// As the service, without files.
const BY_VARIABLES: &str = r#"
echo "start $$ $DINIE_SANDBOX_CLIENT_ID ${KEYWRIGHT_CREDENTIALS:-none}" >> story
while :; do sleep 0.1; done
"#;

fn environ(id: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{id}/environ")).expect("it is readable")).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_the_programs_alone_and_a_change_restarts_it() {
    let house = House::start().await;
    let mut program = house.program(&["--env", "--settle", "1s"], BY_VARIABLES);
    let first = program.tells("start", 1).await;
    assert_eq!((first.client_id.as_str(), first.files.as_str()), (house.first.client_id.as_str(), "none"));
    let of_program = environ(&first.id);
    assert!(of_program.contains(&format!("DINIE_SANDBOX_CLIENT_SECRET={}\0", house.first.secret)));
    house.assert_silent(&program, &[]);
    let new = house.rotate().await;
    let second = program.tells("start", 2).await;
    assert_eq!(second.client_id, new.client_id);
    house.old_key_dies(|| program.told("start").len() == 2).await;
    house.assert_silent(&program, &[]);
    assert_eq!(program.terminate().await.code(), Some(143));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_set_already_is_not_written_over() {
    let house = House::start().await;
    let mut command = house.exec(&["--env"], &["touch", "started"]);
    command.env("DINIE_SANDBOX_CLIENT_ID", "of somebody else");
    let printed = printed(&mut command, b"").await;
    printed.assert_code(1);
    assert!(printed.err().contains("DINIE_SANDBOX_CLIENT_ID: it is set in the environment already"), "{}", printed.err());
    assert!(!house.daemon.site.path("started").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_in_memory_or_there_are_none() {
    let house = House::start().await;
    for place in ["/proc", "/nowhere"] {
        let printed = printed(&mut house.exec(&["--folder", place], &["touch", "started"]), b"").await;
        printed.assert_code(1);
        assert!(printed.err().contains(place) && printed.err().contains("--folder DIR"), "{}", printed.err());
    }
    assert!(!house.daemon.site.path("started").exists());
    // The user's own memory comes first; what isn't memory is passed over.
    let mut command = house.exec(&[], &["sh", "-c", "echo $KEYWRIGHT_CREDENTIALS"]);
    command.env("XDG_RUNTIME_DIR", "/proc");
    let printed = printed(&mut command, b"").await;
    printed.assert_code(0);
    let out = printed.out();
    assert!(out.starts_with("/dev/shm/keywright-") && !Path::new(out.trim()).exists(), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_are_gone_however_it_ends() {
    let house = House::start().await;
    for (signal, script) in [
        (None, format!("{SERVICE} exit 0").replace("while :; do sleep 0.1; done", "")),
        (Some(Signal::TERM), SERVICE.to_owned()),
        (Some(Signal::INT), SERVICE.replace("trap \"tell $name\" $name", ":")),
    ] {
        let _none = std::fs::remove_file(house.daemon.site.path("story"));
        let mut program = house.program(&[], &script);
        let told = program.tells("start", 1).await;
        if let Some(signal) = signal {
            program.signal(signal);
        }
        program.ends().await;
        assert!(!Path::new(&told.files).exists(), "{signal:?}");
    }
}

/// Killed, it can remove nothing: the next one does, once no program reads from there any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_one_leaves_is_removed_by_the_next() {
    let house = House::start().await;
    let mut program = house.service(&[]);
    let told = program.tells("start", 1).await;
    program.signal(Signal::KILL);
    program.ends().await;
    let other = || async { printed(&mut house.exec(&[], &["true"]), b"").await.assert_code(0).code() };
    other().await;
    assert!(Path::new(&told.files).join("dinie-sandbox.json").exists(), "its program reads from there");
    super::kill_process(super::Pid::from_raw(told.id.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    assert!(crate::support::eventually(super::LIMIT, || !super::lives(&told.id)).await);
    other().await;
    assert!(!Path::new(&told.files).exists());
}

/// A token on a file that is renewed, as Kubernetes does, and an authority of our own.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_called_with_tls_and_a_token_that_is_renewed() {
    let mut token = String::new();
    let mut house = House::with(|site| {
        token = site.application(APPLICATION, "sandbox", &[SANDBOX], "lease: 60s");
        site.authority = Some(Authority::new());
        site.renew_certificate();
    })
    .await;
    house.submit().await;
    let (ca, token_file) = (house.daemon.site.path("ca.pem"), house.daemon.site.path("token"));
    std::fs::write(&ca, house.daemon.site.authority.as_ref().unwrap().root()).unwrap();
    std::fs::write(&token_file, format!("{token}\n")).unwrap();
    let server = format!("https://localhost:{}", house.daemon.site.address.port());
    let options = ["--server", &server, "--ca", ca.to_str().unwrap(), "--token-file", token_file.to_str().unwrap(), "--settle", "1s"];
    let mut program = house.service(&options);
    let first: Told = program.tells("start", 1).await;
    assert_eq!(first.client_id, house.first.client_id);
    program.says("confirmed").await;
    // The old token ends, and with it the stream; the new one is in the file before.
    house.daemon.site.forget_document(APPLICATION);
    let renewed = house.daemon.site.application(APPLICATION, "sandbox", &[SANDBOX], "lease: 60s");
    std::fs::write(&token_file, &renewed).unwrap();
    house.daemon.reload();
    let new = house.rotate().await;
    assert_eq!(program.tells("start", 2).await.client_id, new.client_id);
    house.old_key_dies(|| program.told("start").len() == 2).await;
    let tokens = [token, renewed].map(|token| Canary::after("application token", "app-token-", &token));
    house.assert_silent(&program, &tokens);
    assert_eq!(program.terminate().await.code(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_authority_is_asked_nothing() {
    let mut token = String::new();
    let house = House::with(|site| {
        token = site.application(APPLICATION, "sandbox", &[SANDBOX], "");
        site.authority = Some(Authority::new());
        site.renew_certificate();
    })
    .await;
    house.submit().await;
    let (ca, token_file) = (house.daemon.site.path("ca.pem"), house.daemon.site.path("token"));
    std::fs::write(&ca, Authority::new().root()).unwrap();
    std::fs::write(&token_file, &token).unwrap();
    let server = format!("https://localhost:{}", house.daemon.site.address.port());
    let (ca, token_file) = (ca.to_str().unwrap(), token_file.to_str().unwrap());
    let with = |server: &str, more: &[&str]| {
        let options: Vec<&str> =
            ["--server", server, "--token-file", token_file, "--wait", "1s"].into_iter().chain(more.iter().copied()).collect();
        house.exec(&options, &["touch", "started"])
    };
    let refused = printed(&mut with(&server, &["--ca", ca]), b"").await;
    refused.assert_code(1);
    assert!(refused.err().contains("isn't signed by whom --ca names"), "{}", refused.err());
    std::fs::write(ca, house.daemon.site.authority.as_ref().unwrap().root()).unwrap();
    let by_address = format!("https://{}", house.daemon.site.address);
    let misnamed = printed(&mut with(&by_address, &["--ca", ca]), b"").await;
    misnamed.assert_code(1);
    assert!(misnamed.err().contains("of another name"), "{}", misnamed.err());
    printed(&mut with(&server, &[]), b"").await.assert_code(2);
    printed(&mut with("http://keywright.example", &[]), b"").await.assert_code(2);
    assert!(!house.daemon.site.path("started").exists());
    silent_text(&refused.err(), &[&house.first]);
}
