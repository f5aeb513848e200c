//! Rollouts and rehearsals among the fakes: each instance its own view, reports, silence, and a twin that goes first.

use keywright::delivery::Change;
use keywright::domain::credential::Environment;
use keywright::domain::replicas::Report;
use keywright::engine::Reader;
use keywright::engine::audit::AuditFault;
use keywright::engine::errors::ReportError;

use super::*;

/// 1, half, all; 15 s each.
fn staged() -> String {
    documents(&[("spread: 1s", "spread: 1s, rollout: [1, 50%, 100%]")])
}

/// Four instances with the first version, and a rotation on its first step.
async fn on_first_step() -> (Scene, Vec<App>, Vec<keywright::engine::StreamGuard>) {
    let scene = Scene::new(&staged()).await;
    let mut apps: Vec<App> = (0..4).map(|number| App::new(APPLICATION, &format!("pod-{number}"))).collect();
    for app in &mut apps {
        assert!(app.fetch(&scene.engine).await);
    }
    let streams = apps.iter().map(|app| scene.engine.open_stream(&app.application, &app.instance)).collect();
    scene.rotate().await;
    (scene, apps, streams)
}

/// Who would be served what is current now.
fn chosen<'a>(scene: &Scene, apps: &'a [App]) -> Vec<&'a App> {
    let now = scene.engine.current(&name(CREDENTIAL));
    apps.iter().filter(|app| scene.engine.current_for(&app.reader(), &app.credential) == now).collect()
}

fn step(scene: &Scene) -> Option<(usize, usize, usize, usize)> {
    row(&scene.engine).rollout.map(|rollout| (rollout.step, rollout.of, rollout.instances, rollout.waiting_for.len()))
}

async fn confirm_all(scene: &Scene, apps: &mut [App]) {
    for app in apps {
        assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    }
}

#[tokio::test]
async fn each_step_waits_for_its_confirmations_and_each_instance_has_its_own_view() {
    let (scene, mut apps, _streams) = on_first_step().await;
    let old = apps[0].held.as_ref().unwrap().0.clone();
    let new = current(&scene.engine);
    for (wanted, reached) in [(1, 1), (2, 2)] {
        assert_eq!(step(&scene), Some((wanted, 3, reached, 1)), "the one before has confirmed");
        assert_eq!(chosen(&scene, &apps).len(), reached);
        for app in &mut apps {
            let (version, seen) = scene.engine.current_for(&app.reader(), &app.credential).unwrap();
            let document = scene.engine.read(&app.reader(), &app.credential).await.unwrap();
            let listed = scene.engine.list(&app.reader()).await.remove(0);
            assert_eq!((document.version.clone(), document.revision), (version.clone(), seen));
            assert_eq!((listed.version, listed.revision), (Some(version.clone()), seen));
            assert!(version == new || version == old);
            assert!(seen > 0 && scene.world.accepts(&document.fields));
        }
        assert_eq!(row(&scene.engine).reason.as_deref(), Some("rollout"));
        scene.world.pushes.taken();
        confirm_all(&scene, &mut apps).await;
        scene.live(1).await;
        assert_eq!(scene.world.pushes.taken().len(), 1, "the next step is told");
    }
    assert_eq!(step(&scene), Some((3, 3, 4, 2)));
    confirm_all(&scene, &mut apps).await;
    scene.live(58).await;
    assert!(scene.alive(&scene.first.0), "the overlap began with the last step");
    scene.live(6).await;
    assert!(!scene.alive(&scene.first.0));
    assert_eq!((step(&scene), codes(&scene.engine)), (None, Vec::new()));
    assert!(!scene.world.pushes.taken().contains(&Change::Policies));
}

#[tokio::test]
async fn a_report_takes_it_back_and_nobody_has_a_dead_key_meanwhile() {
    let (scene, mut apps, _streams) = on_first_step().await;
    let first = chosen(&scene, &apps)[0].instance.clone();
    let new = current(&scene.engine);
    let report = async |scene: &Scene, instance: &keywright::domain::ids::InstanceName, version: &VersionId| {
        let (application, credential) = (name(APPLICATION), name(CREDENTIAL));
        scene.engine.report_failed(&Report { application, instance: instance.clone(), credential, version: version.clone() }).await
    };
    assert_eq!(report(&scene, &first, &new).await, Err(ReportError::NotNewest), "it wasn't served that yet");
    for app in &mut apps {
        assert!(app.fetch(&scene.engine).await);
    }
    let other = apps.iter().find(|app| app.instance != first).unwrap().instance.clone();
    assert_eq!(report(&scene, &other, &new).await, Err(ReportError::NotNewest), "and this one never was");
    let old = apps.iter().find(|app| app.instance == other).unwrap().held.as_ref().unwrap().0.clone();
    assert_eq!(report(&scene, &other, &old).await, Ok(()), "what isn't rolled out is only on record");
    assert_eq!(report(&scene, &instance("nobody"), &new).await, Err(ReportError::NotNewest));
    let stranger = Report { application: name("nobody"), instance: first.clone(), credential: name(CREDENTIAL), version: new.clone() };
    assert_eq!(scene.engine.report_failed(&stranger).await, Err(ReportError::Forbidden));
    scene.world.audit.fail_always(Some(AuditFault::Refused));
    assert_eq!(report(&scene, &first, &new).await, Err(ReportError::AuditUnavailable));
    scene.world.audit.fail_always(None);
    assert_eq!(report(&scene, &first, &new).await, Ok(()));
    assert_eq!(report(&scene, &first, &new).await, Ok(()), "the same again");
    // A 204 is on disk.
    drop(_streams);
    let scene = scene.restart().await;
    let _streams: Vec<_> = apps.iter().map(|app| scene.engine.open_stream(&app.application, &app.instance)).collect();
    for _ in 0..20 {
        scene.live(1).await;
        for app in &mut apps {
            assert!(app.fetch(&scene.engine).await);
            assert!(scene.world.accepts(&app.held.as_ref().unwrap().1), "{} has a dead key", app.instance);
        }
    }
    let back = current(&scene.engine);
    assert!(back != new && back != old, "a label never returns");
    assert!(apps.iter().all(|app| app.held.as_ref().unwrap().0 == back), "all have the old value, as a new version");
    assert!(codes(&scene.engine).contains(&"canary-failed".to_owned()));
    assert_eq!(report(&scene, &first, &new).await, Err(ReportError::NotNewest));
    assert_eq!(scene.world.ours_living().len(), 2, "the failed key has its overlap too");
    confirm_all(&scene, &mut apps).await;
    scene.live(70).await;
    assert_eq!(scene.world.ours_living(), [scene.first.0.clone()].into(), "the failed key is dead");
    let reports = scene.world.audit.records().iter().filter(|(_, action)| action.action == "reported-failed").count();
    assert_eq!(reports, 1, "what is repeated, or changes nothing, is only counted");
}

#[tokio::test]
async fn silence_takes_it_back_and_who_comes_next_is_tried_where_a_canary_is_gone() {
    let (scene, mut apps, mut streams) = on_first_step().await;
    let new = current(&scene.engine);
    for app in &mut apps {
        assert!(app.fetch(&scene.engine).await);
    }
    let index = apps.iter().position(|app| app.held.as_ref().unwrap().0 == new).unwrap();
    // It is released: the next one in line is a canary now.
    drop(streams.remove(index));
    let gone = apps.remove(index);
    scene.engine.release(operator(), &gone.application, Some(&gone.instance)).await.unwrap();
    scene.live(1).await;
    assert_eq!(step(&scene), Some((1, 3, 1, 1)));
    assert_eq!(chosen(&scene, &apps).len(), 1);
    scene.live(20).await;
    assert!(codes(&scene.engine).contains(&"canary-silent".to_owned()), "{:#?}", status(&scene.engine));
    assert_ne!(current(&scene.engine), new);
    assert!(scene.alive(&scene.first.0));
}

#[tokio::test]
async fn a_stolen_key_waits_for_no_step() {
    let (scene, mut apps, _streams) = on_first_step().await;
    scene.engine.compromised(operator(), &name(CREDENTIAL), Duration::from_secs(600)).await.unwrap();
    assert_eq!(chosen(&scene, &apps).len(), 4, "at once");
    for _ in 0..10 {
        confirm_all(&scene, &mut apps).await;
        scene.live(3).await;
    }
    assert!(!scene.alive(&scene.first.0));
    assert_eq!((row(&scene.engine).phase.as_str(), codes(&scene.engine).len()), ("steady", 0));
}

#[tokio::test]
async fn a_rollback_by_hand_goes_to_all_at_once_and_a_pause_stops_no_step() {
    let (scene, mut apps, _streams) = on_first_step().await;
    scene.engine.pause(operator(), Some(&name(CREDENTIAL))).await.unwrap();
    confirm_all(&scene, &mut apps).await;
    scene.live(1).await;
    assert_eq!(step(&scene).map(|it| it.0), Some(2), "steps destroy nothing");
    let back = scene.engine.roll_back(operator(), &name(CREDENTIAL)).await.unwrap();
    for app in &mut apps {
        assert!(app.fetch(&scene.engine).await);
        assert_eq!(app.held.as_ref().unwrap().0, back.version);
    }
    assert_eq!(step(&scene), None);
}

#[tokio::test]
async fn a_person_is_shown_what_is_current_and_the_first_version_is_everybodys() {
    let (scene, apps, _streams) = on_first_step().await;
    let person = Reader::Operator { who: "uid 0".to_owned(), reason: "to look".parse().ok() };
    assert_eq!(scene.engine.read(&person, &name(CREDENTIAL)).await.unwrap().version, current(&scene.engine));
    assert_eq!(chosen(&scene, &apps).len(), 1);
    let scene = Scene::new(&staged()).await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    assert_eq!(step(&scene), None);
}

const TWIN: &str = "dinie-sandbox";

/// Production rehearses; both have a version.
async fn with_twin() -> Scene {
    let scene = with_twin_to_come().await;
    let (_, material) = scene.world.issuer.enrol(Environment::Sandbox, "made by hand");
    scene.engine.submit(operator(), &name(TWIN), material).await.unwrap();
    scene
}

/// Production rehearses, and the twin's key isn't there yet.
async fn with_twin_to_come() -> Scene {
    let text = documents(&[
        ("spread: 1s", "spread: 1s, rehearse: sandbox"),
        (
            "rotation: hourly}\n",
            "rotation: hourly, twin: dinie-sandbox}\n---\napiVersion: keywright.dev/v1alpha1\nkind: Credential\nmetadata: {name: dinie-sandbox}\nspec: {provider: dinie, environment: sandbox, rotation: hourly}\n",
        ),
    ]);
    let scene = Scene::new(&text).await;
    scene.engine.release(operator(), &name(APPLICATION), None).await.unwrap();
    scene
}

fn generation(engine: &Engine, credential: &str) -> u64 {
    engine.status(Some(&name(credential)), None, 1).unwrap().credentials[0].generation
}

#[tokio::test]
async fn what_is_due_waits_for_its_twin_which_rotates_for_it_once() {
    let scene = with_twin().await;
    scene.world.issuer.behave(|behaviour| behaviour.stillborn = true);
    // Production is asked for by a person: that skips nothing.
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(2).await;
    assert!(row(&scene.engine).reason.is_some_and(|reason| reason.starts_with("rehearsal")));
    let plan = scene.engine.plan(90, None, 10);
    assert!(plan.plan.iter().any(|entry| entry.name == name(CREDENTIAL) && entry.blocked_by.contains(&TWIN.to_owned())), "{plan:?}");
    // The sandbox keeps failing: production stays on the old key and says why.
    scene.live(600).await;
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("rehearsal-failed"));
    let problem = status(&scene.engine).problems.into_iter().find(|problem| problem.code == "rehearsal-failed").unwrap();
    assert!(problem.message.contains(TWIN));
    assert!(scene.alive(&scene.first.0) && generation(&scene.engine, CREDENTIAL) == 1);
    // It works again: the twin rotates, and production after it.
    scene.world.issuer.behave(|behaviour| behaviour.stillborn = false);
    scene.live(1_200).await;
    assert_eq!((generation(&scene.engine, TWIN), generation(&scene.engine, CREDENTIAL)), (2, 2), "{:#?}", status(&scene.engine));
    assert!(!scene.alive(&scene.first.0));
    assert!(!codes(&scene.engine).contains(&"rehearsal-failed".to_owned()));
}

#[tokio::test]
async fn by_time_the_twin_goes_first_and_both_end_in_time() {
    let scene = with_twin().await;
    scene.live(3_600).await;
    assert!(generation(&scene.engine, TWIN) >= 2 && generation(&scene.engine, CREDENTIAL) == 2, "{:#?}", status(&scene.engine));
    assert!(!scene.alive(&scene.first.0), "by its deadline");
    let reasons: Vec<String> =
        scene.world.audit.records().iter().filter(|(_, it)| it.action == "planned").filter_map(|(_, it)| it.detail.clone()).collect();
    assert!(reasons.iter().any(|reason| reason.ends_with("rehearsal") || reason.ends_with("max-age")), "{reasons:?}");
}

#[tokio::test]
async fn a_twin_that_fails_past_the_deadline_leaves_the_old_key_alive_and_overdue_and_a_stolen_one_waits_for_nobody() {
    let scene = with_twin().await;
    scene.world.issuer.behave(|behaviour| behaviour.stillborn = true);
    scene.live(3_700).await;
    assert!(scene.alive(&scene.first.0));
    let codes = codes(&scene.engine);
    assert!(codes.contains(&"overdue".to_owned()) && codes.contains(&"rehearsal-failed".to_owned()), "{codes:?}");
    scene.world.issuer.behave(|behaviour| behaviour.stillborn = false);
    scene.engine.compromised(operator(), &name(CREDENTIAL), Duration::from_secs(600)).await.unwrap();
    scene.live(30).await;
    assert!(!scene.alive(&scene.first.0));
}

#[tokio::test]
async fn a_twin_without_a_key_is_named_with_the_way_out_and_once_it_has_one_the_rehearsal_goes_on() {
    let scene = with_twin_to_come().await;
    scene.live(3_700).await;
    assert!(scene.alive(&scene.first.0) && generation(&scene.engine, CREDENTIAL) == 1);
    let problem = status(&scene.engine).problems.into_iter().find(|problem| problem.code == "rehearsal").unwrap();
    assert!(problem.message.contains(TWIN) && problem.message.contains("submit one there"), "{problem:?}");
    let (_, material) = scene.world.issuer.enrol(Environment::Sandbox, "made by hand");
    scene.engine.submit(operator(), &name(TWIN), material).await.unwrap();
    scene.live(1_200).await;
    assert_eq!(generation(&scene.engine, CREDENTIAL), 2, "{:#?}", status(&scene.engine));
    assert!(!scene.alive(&scene.first.0) && !codes(&scene.engine).contains(&"rehearsal".to_owned()));
}
