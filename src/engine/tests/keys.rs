//! Keys: candidates that are refused, providers that are slow, throttle, or hold keys that nobody knows.

use keywright::domain::credential::Environment;
use keywright::domain::rotation::CANDIDATE_REFUSALS_MAX;
use keywright::issuers::memory::FaultAction;

use super::*;

#[tokio::test]
async fn a_candidate_that_is_refused_for_ever_is_abandoned_and_its_key_revoked() {
    let scene = Scene::usual().await;
    scene.world.issuer.behave(|behaviour| behaviour.stillborn = true);
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(1_000).await;
    assert_eq!(row(&scene.engine).phase, "steady");
    assert!(codes(&scene.engine).contains(&"candidate-refused".to_owned()));
    assert_eq!(scene.world.ours_living(), [scene.first.0.clone()].into());
    assert!(scene.alive(&scene.first.0));
    assert!(scene.world.issuer.calls("issuer.create") < 4 * u64::from(CANDIDATE_REFUSALS_MAX), "tries are bounded");
    // The time comes, and it is still so: each try waits longer than the one before, and leaves nothing behind.
    scene.live(3_600).await;
    assert!(scene.world.ours_living().len() <= 2);
    assert!(scene.world.issuer.calls("issuer.create") < 40, "{}", scene.world.issuer.calls("issuer.create"));
}

#[tokio::test]
async fn a_key_that_spreads_slowly_and_unevenly_is_promoted_only_when_it_works_everywhere() {
    let scene = Scene::usual().await;
    scene.world.issuer.behave(|behaviour| (behaviour.propagation, behaviour.flapping) = (Duration::from_secs(45), true));
    let issued = scene.world.now();
    scene.rotate().await;
    let passed = scene.world.now().duration_since(issued);
    assert!(passed.as_secs() >= 45, "promoted after {passed:?}");
    assert_eq!(scene.world.issuer.calls("issuer.create"), 1, "waiting needs no second key");
}

#[tokio::test]
async fn a_provider_that_names_a_wait_is_obeyed() {
    let scene = Scene::usual().await;
    scene.world.issuer.inject("issuer.create", FaultAction::Throttle(Some(Duration::from_secs(500))));
    let before = current(&scene.engine);
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(499).await;
    assert_eq!(scene.world.issuer.calls("issuer.create"), 1);
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("provider-throttled"));
    scene.live(2).await;
    assert_eq!(scene.world.issuer.calls("issuer.create"), 2);
    assert_ne!(current(&scene.engine), before);
    assert_eq!(codes(&scene.engine), ["no-instance-seen"], "nothing of the throttling is left");
}

#[tokio::test]
async fn repeated_failures_wait_longer_each_time() {
    let scene = Scene::usual().await;
    for _ in 0..40 {
        scene.world.issuer.inject("issuer.create", FaultAction::LoseReply);
    }
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(600).await;
    let creates = scene.world.issuer.calls("issuer.create");
    assert!((3..=16).contains(&creates), "{creates} creates in ten minutes");
    assert!(scene.world.ours_living().len() <= 2);
}

#[tokio::test]
async fn an_orphan_with_our_marker_is_revoked_and_no_other_key() {
    let scene = Scene::usual().await;
    let marker = {
        scene.rotate().await;
        let living = scene.world.issuer.living(Environment::Production);
        living.into_iter().find(|(_, name)| name.starts_with("kw-") && name.ends_with("-2-1") && !name.contains("ffffffff")).unwrap().1
    };
    let (orphan, _) = scene.world.issuer.enrol(Environment::Production, &marker.replace("-2-1", "-1-7"));
    let longer = marker.replace(CREDENTIAL, "dinie-production-2");
    let (of_another, _) = scene.world.issuer.enrol(Environment::Production, &longer);
    scene.live(1_000).await;
    assert!(!scene.alive(&orphan), "a key of ours that the journal doesn't know");
    assert!(scene.alive(&of_another), "another credential's marker isn't this one's");
    assert!(scene.world.foreign_live());
}

#[tokio::test]
async fn where_the_provider_cannot_list_a_lost_reply_is_shown_and_bounded() {
    let built_in = dinie();
    let (before, from_list) = built_in.split_once("    list:\n").unwrap();
    let blind = format!("{before}    revoke:\n{}", from_list.split_once("    revoke:\n").unwrap().1);
    let scene = Scene::new(&format!("{blind}\n---{DOCUMENTS}")).await;
    scene.world.issuer.behave(|behaviour| behaviour.blind = true);
    for _ in 0..100 {
        scene.world.issuer.inject("issuer.create", FaultAction::LoseReply);
    }
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(20_000).await;
    assert_eq!(scene.world.issuer.calls("issuer.create"), 3);
    assert!(codes(&scene.engine).contains(&"possible-orphan".to_owned()), "{:?}", codes(&scene.engine));
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("possible-orphans"));
    assert!(scene.alive(&scene.first.0));
    // Nobody who can't look calls it clean: after a restart it is still shown.
    let scene = scene.restart().await;
    assert!(codes(&scene.engine).contains(&"possible-orphan".to_owned()));
}

#[tokio::test]
async fn two_rotations_in_a_row_leave_one_key() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    let mut seen = vec![current(&scene.engine)];
    for _ in 0..2 {
        assert!(app.fetch(&scene.engine).await);
        scene.rotate().await;
        assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
        scene.live(70).await;
        assert_eq!(row(&scene.engine).phase, "steady");
        seen.push(current(&scene.engine));
    }
    seen.dedup();
    assert_eq!((seen.len(), scene.world.ours_living().len()), (3, 1));
    assert!(!scene.alive(&scene.first.0));
    assert_eq!(row(&scene.engine).generation, 3);
}

#[tokio::test]
async fn where_all_slots_are_taken_nothing_is_evicted() {
    let scene = Scene::usual().await;
    scene.world.issuer.behave(|behaviour| behaviour.slots = Some(3));
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(5).await;
    assert!(codes(&scene.engine).contains(&"no-free-slot".to_owned()));
    assert!(scene.alive(&scene.first.0) && scene.world.foreign_live());
}

/// Also in the moment between two attempts.
#[tokio::test]
async fn what_hinders_a_rotation_is_told_until_it_hinders_none() {
    let scene = Scene::usual().await;
    scene.world.issuer.behave(|behaviour| behaviour.slots = Some(3));
    scene.live(3_700).await;
    assert!(row(&scene.engine).reason.is_some(), "its hour is over");
    for _ in 0..4_000 {
        scene.world.clocks.advance(Duration::from_secs(1));
        assert!(row(&scene.engine).reason.is_some(), "{:?}", row(&scene.engine));
        scene.engine.turn().await;
    }
    scene.world.issuer.behave(|behaviour| behaviour.slots = None);
    scene.live(4_000).await;
    assert!(row(&scene.engine).generation >= 2, "{:?}", row(&scene.engine));
}

#[tokio::test]
async fn keys_of_one_account_are_never_made_at_the_same_time() {
    let credentials: String = (0..6)
        .map(|n| {
            format!(
                "---\napiVersion: keywright.dev/v1alpha1\nkind: Credential\nmetadata: {{name: many-{n}}}\n\
                 spec: {{provider: dinie, environment: production, rotation: hourly}}\n"
            )
        })
        .collect();
    let world = World::with(Backend::memory(), &format!("{DOCUMENTS}{credentials}"));
    let engine = world.start().await.unwrap();
    for n in 0..6 {
        engine.submit(operator(), &name(&format!("many-{n}")), world.made_by_hand().1).await.unwrap();
    }
    // Between a create and its `issued` record nobody else creates: the survey before a create shows no stranger of ours.
    let creating = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (counter, before) = (creating.clone(), world.issuer.history(<[_]>::len));
    world.issuer.hook(Arc::new(move |point| {
        if point == "issuer.create" {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        FaultAction::Proceed
    }));
    for n in 0..6 {
        engine.rotate(operator(), &name(&format!("many-{n}"))).await.unwrap();
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(engine.clone().run(stop.clone()));
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if (0..6).all(|n| engine.current(&name(&format!("many-{n}"))).unwrap().1 >= 2) {
            break;
        }
    }
    stop.cancel();
    running.await.unwrap();
    assert_eq!(creating.load(std::sync::atomic::Ordering::SeqCst), 6);
    assert_eq!(world.issuer.history(<[_]>::len), before + 6, "each was made once, and none was taken for an orphan");
}
